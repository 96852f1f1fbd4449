"""Links, time zones and static files of the pages."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest

from herdbook.service.dashboard.links import Links, model_path
from herdbook.service.dashboard.static_files import FILES, static_link
from herdbook.service.dashboard.time_zone import time_zone_of


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("llama3.1:8b", "/models/llama3.1:8b"),
        ("hf.co/a/b:c", "/models/hf.co%2Fa%2Fb:c"),
        ('a"<>#?%&', "/models/a%22%3C%3E%23%3F%25%26"),
    ],
)
def test_model_path_is_one_segment(name: str, path: str) -> None:
    assert model_path(name) == path


def test_links_omit_empty_parameters() -> None:
    links = Links()

    assert links.to("/log", model="", before=None, type_="A") == "/log?type=A"
    assert links.model("a:b", "pull") == "/models/a:b/pull"


def test_links_keep_the_time() -> None:
    links = Links("2026-11-24T14:02:00Z")

    assert links.event(3) == "/log/3?as_of=2026-11-24T14%3A02%3A00Z"
    assert links.to("/", gone="1") == "/?gone=1&as_of=2026-11-24T14%3A02%3A00Z"


@pytest.mark.parametrize("cookie", ["Europe%2FBerlin", "Europe/Berlin"])
def test_time_zone_comes_from_the_browser(cookie: str) -> None:
    assert time_zone_of({"zone": cookie}) == ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    "cookie",
    [
        "",
        "Nowhere/There",
        "../../etc/passwd",
        "/etc/passwd",
        "Europe",
        "x" * 99,
        "a\0b",
    ],
)
def test_invalid_time_zone_falls_back_to_the_server(cookie: str) -> None:
    assert time_zone_of({"zone": cookie}) is None


def test_static_links_contain_a_content_hash() -> None:
    assert static_link("live.js") == f"/static/live.js?v={FILES['live.js'].version}"
    assert {"herdbook.css", "live.js", "icon.svg"} <= set(FILES)


def test_script_is_short_and_has_no_framework() -> None:
    script = FILES["live.js"].content.decode()

    assert len(script.splitlines()) < 400
    assert "import " not in script
    assert "eval(" not in script
    assert "innerHTML =" not in script
