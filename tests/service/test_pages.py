"""The pages, as a browser without a script gets them from a real service."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from time import monotonic, sleep
from typing import Any, ClassVar
from urllib.parse import quote, unquote

import httpx
import pytest
from command import Server
from guarded import ADMIN, OPERATOR, READER, TOKENS
from service_program import Thread, thread

MODEL = "llama3.2:3b"
HOSTILE = "<script>alert('\"&\u202e1')</script>"
PAGES = [
    *("/", "/?gone=1", "/roles", "/log", "/log/1", "/node", "/compare?from=1"),
    *("/log?type=ModelDiscovered", "/log?model=llama", "/log?cause=observed"),
    *("/log?actor=reconciler&since=2+hours+ago&until=now", "/log?before=3"),
    *(f"/models/{MODEL}", f"/models/{MODEL}?span=hour", f"/models/{MODEL}?before=5"),
    *("/models/never:seen", "/models/hf.co/some/body:q4", "/models/hf.co%2Fa%2Fb"),
    f"/models/{MODEL}/configuration",
]
LOOSE = ("img", "link", "meta", "input", "br", "hr")


class Page(HTMLParser):
    """A page, read: its links, its forms, and whether all that opens is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        assert "style" not in told
        assert not [name for name in told if name.startswith("on")]
        assert tag != "style"
        assert tag != "script" or str(told["src"]).startswith("/static/live.js?v=")
        if tag == "a":
            self.links.append(str(told["href"]))
        if "id" in told:
            self.ids.append(str(told["id"]))
        if tag not in LOOSE:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.words.append(" ".join(data.split()))

    @property
    def text(self) -> str:
        """What stands on it."""
        return " ".join(self.words)


class Browser:
    """One who looks at the pages."""

    all: ClassVar[list[Browser]] = []

    def __init__(self, address: str, token: str = "") -> None:
        self.all.append(self)
        headers = {"accept": "text/html"}
        if token:
            headers["authorization"] = f"Bearer {token}"
        self.http = httpx.Client(
            base_url=address, headers=headers, timeout=20, trust_env=False
        )

    def page(self, path: str, status: int = 200) -> Page:
        """Open a page."""
        answer = self.http.get(path, follow_redirects=True)
        assert answer.status_code == status, answer.text
        return Page(answer.text)

    def send(self, path: str, status: int = 303, /, **form: str) -> httpx.Response:
        """Send a form."""
        answer = self.http.post(path, data=form)
        assert answer.status_code == status, answer.text
        return answer


@pytest.fixture(autouse=True)
def closing() -> Iterator[None]:
    """Close what the browsers have open."""
    yield
    while Browser.all:
        Browser.all.pop().http.close()


@pytest.fixture
def browser(herdbook: Thread) -> Browser:
    """Return who looks at the pages of a service that runs."""
    return Browser(herdbook.address)


def types_of(herdbook: Thread, name: str = MODEL) -> list[str]:
    """Return what the log says of a model, the oldest first; nothing of a new one."""
    answer = herdbook.http.get(f"/v1/models/{name}/history?limit=1000")
    if answer.status_code == 404:
        return []
    entries = sorted(answer.json(), key=lambda entry: entry["position"])
    return [entry["type"] for entry in entries]


def settings_of(herdbook: Any, name: str = MODEL) -> dict[str, Any]:
    told: dict[str, Any] = herdbook.get(f"/v1/models/{name}/configuration")["settings"]
    return told


@pytest.mark.parametrize("path", PAGES)
def test_page_is_well_formed_now_and_as_of(browser: Browser, path: str) -> None:
    now = browser.page(path)
    then = browser.page(f"{path}{'&' if '?' in path else '?'}as_of=9")

    assert len(now.ids) == len(set(now.ids))
    assert "as of" in then.text
    assert "Actions are off" in then.text
    for link in then.links:
        leaves = link.startswith(("/?as_of=", "/compare?from=9"))
        leaves = leaves or _same(link, path)
        assert leaves or not link.startswith("/") or "as_of=9" in link, link


def test_page_of_the_past_has_no_live_updates(browser: Browser) -> None:
    now = browser.http.get("/").text
    then = browser.http.get("/?as_of=3").text

    assert "data-after=" in now
    assert "data-after=" not in then
    assert 'class="past"' in then


def test_moment_of_the_past_stays_the_same(browser: Browser) -> None:
    links = browser.page("/log?as_of=1+min+ago").links

    kept = {found[1] for link in links if (found := re.search(r"as_of=([^&]+)", link))}
    assert len(kept) == 1
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT.*Z", kept.pop().replace("%3A", ":"))


def test_herd_shows_each_model_with_what_can_be_done(browser: Browser) -> None:
    page = browser.page("/")

    assert f"/models/{MODEL}" in page.links
    assert f"/models/{MODEL}/load" in page.links
    assert "5 models" in page.text
    assert "now · event" in page.text


def test_herd_without_a_server_says_what_to_do(tmp_path: Path) -> None:
    with thread(tmp_path / "herd.db", "127.0.0.1:9") as running:
        page = Browser(running.address).page("/")

    assert "No server has answered yet." in page.text
    assert "ollama serve" in page.text


def test_banner_stands_on_every_page(tmp_path: Path, ollama: Server) -> None:
    with thread(tmp_path / "herd.db", ollama.address, banner=HOSTILE) as running:
        looking = Browser(running.address)

        assert HOSTILE in looking.page("/").text
        assert HOSTILE in looking.page("/nowhere", 404).text


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/nowhere", 404, "is not a path of this service"),
        ("/log/999999", 404, "is not in the log"),
        ("/?as_of=soon", 400, "is no moment"),
        ("/?as_of=999999", 400, "is not in the log"),
        ("/log?cause=whim", 400, "is no cause"),
        ("/log?type=Nothing", 400, "is no type of event"),
        ("/log?since=%2317", 400, "is a position"),
        ("/pull?model=", 400, "is empty"),
        ("/pull?model=a+b", 400, "is no name of a model"),
        ("/static/nothing.js", 404, "is not a file of this service"),
    ],
)
def test_what_cannot_be_shown_says_why(
    browser: Browser, path: str, status: int, words: str
) -> None:
    page = browser.page(path, status)

    assert words in page.text
    assert "/" in page.links


def test_static_files_are_kept_by_their_content(browser: Browser) -> None:
    link = re.search(
        r'href="(/static/herdbook.css\?v=\w+)"', browser.http.get("/").text
    )
    assert link

    kept = browser.http.get(link[1])
    other = browser.http.get("/static/herdbook.css?v=older")

    assert "immutable" in kept.headers["cache-control"]
    assert other.headers["cache-control"] == "no-cache"
    assert kept.headers["content-type"] == "text/css; charset=utf-8"


def test_pull_by_name_leads_to_the_question(browser: Browser) -> None:
    absent = browser.page("/pull?model=qwen3:0.6b")
    present = browser.page(f"/pull?model={MODEL}")

    assert "Pull qwen3:0.6b?" in absent.text
    assert "to fetch" in absent.text
    assert f"Update {MODEL}?" in present.text


def test_pull_is_begun_by_the_form_and_recorded(
    browser: Browser, herdbook: Thread
) -> None:
    answer = browser.send("/models/qwen3:0.6b/pull")

    assert answer.headers["location"] == "/models/qwen3:0.6b"
    _until(lambda: "PullCompleted" in types_of(herdbook, "qwen3:0.6b"))
    started = herdbook.get("/v1/models/qwen3:0.6b/history?limit=100")[0]
    assert (started["type"], started["actor"]) == ("PullStarted", "api:local")


def test_load_use_and_unload_by_their_forms(browser: Browser, herdbook: Thread) -> None:
    browser.send(f"/models/{MODEL}/load", num_ctx="2048", keep_alive="10m")
    _until(lambda: "ModelLoaded" in types_of(herdbook, MODEL))
    browser.send(f"/models/{MODEL}/use", purpose=HOSTILE)
    page = browser.page(f"/models/{MODEL}")
    asked = browser.page(f"/models/{MODEL}/unload")
    browser.send(f"/models/{MODEL}/unload")
    _until(lambda: "ModelUnloaded" in types_of(herdbook, MODEL))

    assert f"used: {HOSTILE}" in page.text
    assert "2k context" in page.text
    assert "in effect 2,048 tokens of context" in page.text
    assert "gives back the memory of its runner" in asked.text


@pytest.mark.parametrize(
    ("form", "words"),
    [({"num_ctx": "viele"}, "num_ctx"), ({"keep_alive": "0"}, "keep_alive")],
)
def test_load_that_cannot_be_is_refused(
    browser: Browser, form: dict[str, str], words: str
) -> None:
    answer = browser.http.post(f"/models/{MODEL}/load", data=form)

    assert answer.status_code == 400
    assert words in Page(answer.text).text


def test_delete_says_what_it_frees_and_leads_to_the_herd(
    browser: Browser, herdbook: Thread
) -> None:
    asked = browser.page(f"/models/{MODEL}/delete")
    answer = browser.send(f"/models/{MODEL}/delete")

    assert "That frees 2.0 GB." in asked.text
    assert answer.headers["location"] == "/"
    assert types_of(herdbook, MODEL)[-1] == "ModelDeleted"
    assert MODEL not in browser.page("/").text
    assert MODEL in browser.page("/?gone=1").text


def test_cancel_ends_a_pull(tmp_path: Path, slow_ollama: Server) -> None:
    with thread(tmp_path / "herd.db", slow_ollama.address) as running:
        looking = Browser(running.address)
        looking.send("/models/qwen3:0.6b/pull")
        _until(lambda: " MB/s" in looking.page("/").text)
        herd = looking.page("/")
        asked = looking.page("/models/qwen3:0.6b/cancel")
        looking.send("/models/qwen3:0.6b/cancel")
        types = types_of(running, "qwen3:0.6b")

    assert "asked for by api:local" in herd.text
    assert "Cancel the pull of qwen3:0.6b?" in asked.text
    assert "a later pull goes on from there" in asked.text
    assert types[-1] == "PullCancelled"


def test_failure_is_told_once_with_its_remedy(
    browser: Browser, herdbook: Thread
) -> None:
    browser.send("/models/no-such:1b/pull")
    _until(lambda: "PullFailed" in types_of(herdbook, "no-such:1b"))

    text = browser.page("/").text

    assert text.count("Check the name and the tag") == 1
    assert "pull again" in text


def test_cancel_where_nothing_is_under_way_says_so(browser: Browser) -> None:
    assert "Nothing is under way" in browser.page(f"/models/{MODEL}/cancel").text


@pytest.mark.parametrize("way", ["GET", "POST"])
def test_word_that_is_no_deed_is_no_page(browser: Browser, way: str) -> None:
    answer = browser.http.request(way, f"/models/{MODEL}/explode")

    assert answer.status_code in (400, 404, 405)


def test_names_with_slashes_are_one_name(browser: Browser) -> None:
    page = browser.page("/models/hf.co/some/body:q4")

    assert "Nothing is recorded of hf.co/some/body:q4 yet." in page.text
    assert "/models/hf.co%2Fsome%2Fbody:q4/pull" in page.links
    assert (
        "Pull hf.co/some/body:q4?"
        in browser.page("/models/hf.co%2Fsome%2Fbody:q4/pull").text
    )


def test_settings_are_changed_by_the_form(browser: Browser, herdbook: Thread) -> None:
    browser.send(
        f"/models/{MODEL}/configuration",
        version=_version(herdbook),
        num_ctx="8192",
        pinned="true",
        notes=HOSTILE,
        options="top_k=40",
        **{"capability.tools": "false"},
        note="long files",
    )
    page = browser.page(f"/models/{MODEL}")

    assert settings_of(herdbook) == {
        "num_ctx": 8192,
        "pinned": True,
        "notes": HOSTILE,
        "options.top_k": 40,
        "capability.tools": False,
    }
    assert HOSTILE in page.text
    assert "long files" in page.text
    assert "api:local" in page.text


def test_settings_that_cannot_be_lose_nothing(
    browser: Browser, herdbook: Thread
) -> None:
    answer = browser.send(
        f"/models/{MODEL}/configuration",
        422,
        version=_version(herdbook),
        num_ctx="viele",
        notes="my words",
        note="my reason",
    )

    assert "Nothing was saved." in Page(answer.text).text
    assert "my words" in answer.text
    assert 'value="viele"' in answer.text
    assert 'value="my reason"' in answer.text
    assert settings_of(herdbook) == {}


def test_settings_that_changed_meanwhile_are_shown_beside_what_was_typed(
    browser: Browser, herdbook: Thread
) -> None:
    path, version = f"/models/{MODEL}/configuration", _version(herdbook)
    browser.send(path, version=version, num_ctx="4096", notes="theirs", note="first")

    answer = browser.send(path, 409, version=version, temperature="0.7", note="mine")

    page = Page(answer.text)
    assert "The settings changed while you were typing. Nothing was saved." in page.text
    assert "num_ctx set to 4096 (was: not set)" in page.text
    assert 'name="num_ctx" inputmode="numeric" value="4096"' in answer.text
    assert 'name="temperature" inputmode="decimal" value="0.7"' in answer.text
    assert 'value="mine"' in answer.text
    assert settings_of(herdbook) == {"num_ctx": 4096, "notes": "theirs"}
    newer = re.search(r'name="version" value="(\d+)"', answer.text)
    assert newer
    browser.send(path, version=newer[1], num_ctx="4096", temperature="0.7")
    assert settings_of(herdbook) == {"num_ctx": 4096, "temperature": 0.7}


def test_use_meanwhile_is_no_conflict(browser: Browser, herdbook: Thread) -> None:
    version = _version(herdbook)
    browser.send(f"/models/{MODEL}/use")

    browser.send(f"/models/{MODEL}/configuration", version=version, num_ctx="4096")

    assert settings_of(herdbook) == {"num_ctx": 4096}


def test_form_without_its_version_changes_nothing(
    browser: Browser, herdbook: Thread
) -> None:
    browser.send(f"/models/{MODEL}/configuration", 400, num_ctx="4096")

    assert settings_of(herdbook) == {}


def test_event_tells_its_envelope_and_its_operation(
    browser: Browser, herdbook: Thread
) -> None:
    browser.send(f"/models/{MODEL}/load")
    _until(lambda: "ModelLoaded" in types_of(herdbook, MODEL))
    event = next(
        e
        for e in herdbook.get("/v1/events?newest_first=true")["events"]
        if e["type"] == "ModelLoaded"
    )
    before = herdbook.get(f"/v1/events/{event['position'] - 1}")

    page = browser.page(f"/log/{event['position']}")

    for word in (event["hash"], before["hash"], event["event_id"], "load started"):
        assert word in page.text


def test_roles_tell_who_was_chosen_and_what_is_worth_pulling(browser: Browser) -> None:
    page = browser.page("/roles")

    assert "coding needs completion and coding" in page.text
    assert "worth pulling" in page.text
    assert any(link.endswith("/pull") for link in page.links)


def test_node_tells_server_log_and_diagnosis(
    browser: Browser, herdbook: Thread
) -> None:
    page = browser.page("/node")

    assert herdbook.get("/v1/log/head")["hash"] in page.text
    assert "answers since" in page.text
    assert "Diagnosis" in page.text
    assert browser.send("/node/refresh").headers["location"] == "/node"


def test_compare_tells_what_differs(browser: Browser, herdbook: Thread) -> None:
    begin = herdbook.get("/v1/log/head")["position"]
    browser.send(
        f"/models/{MODEL}/configuration", version=_version(herdbook), num_ctx="4096"
    )

    page = browser.page(f"/compare?from={begin}")

    assert "settings.num_ctx" in page.text
    assert "Nothing differs." in browser.page("/compare?from=1&to=1").text
    assert "Between which moments?" in browser.page("/compare").text


def test_times_are_told_in_the_readers_zone(browser: Browser) -> None:
    def clock(zone: str) -> str:
        answer = browser.http.get("/", headers={"cookie": f"zone={zone}"})
        found = re.search(r'id="clock"[^>]*>(\d\d):', answer.text)
        assert found
        return found[1]

    hours = int(clock("Asia%2FTokyo")) - int(clock("UTC"))
    assert hours % 24 in (9, 10, 8)  # between the two an hour may end


@pytest.fixture
def guarded(tmp_path: Path, ollama: Server) -> Iterator[Thread]:
    """Return a service that wants a token."""
    with thread(tmp_path / "herd.db", ollama.address, tokens=TOKENS) as running:
        yield running


def test_who_may_only_read_sees_why_buttons_are_off(guarded: Thread) -> None:
    looking = Browser(guarded.address, READER)
    page = looking.page(f"/models/{MODEL}")

    assert "Off: it takes the role operate, and ruth has read." in page.text
    assert f"/models/{MODEL}/load" not in page.links
    assert "is not possible here" in looking.page(f"/models/{MODEL}/load", 403).text
    assert looking.http.post(f"/models/{MODEL}/load").status_code == 403


def test_delete_takes_an_administrator(guarded: Thread) -> None:
    olga, anna = Browser(guarded.address, OPERATOR), Browser(guarded.address, ADMIN)
    page = olga.page(f"/models/{MODEL}")

    assert f"/models/{MODEL}/load" in page.links
    assert f"/models/{MODEL}/delete" not in page.links
    assert "it takes the role admin" in page.text
    assert olga.http.post(f"/models/{MODEL}/delete").status_code == 403
    assert anna.http.post(f"/models/{MODEL}/delete").status_code == 303


def test_read_only_service_says_so(tmp_path: Path, ollama: Server) -> None:
    with thread(tmp_path / "herd.db", ollama.address, read_only=True) as running:
        looking = Browser(running.address)
        page = looking.page("/")

        assert "Actions are off: this service is read only." in page.text
        assert not [link for link in page.links if link.endswith("/load")]
        assert looking.http.post(f"/models/{MODEL}/load").status_code == 403


def _same(link: str, path: str) -> bool:
    """Return whether a link leads to a page itself: back to now."""
    one, other = (unquote(each).partition("?")[0] for each in (link, path))
    return one == other


def _version(herdbook: Thread) -> str:
    return str(herdbook.get(f"/v1/models/{MODEL}/configuration")["version"])


def _until(holds: Callable[[], bool], within_s: float = 20.0) -> None:

    deadline = monotonic() + within_s
    while not holds():
        assert monotonic() < deadline
        sleep(0.05)


def test_find_shows_the_models_whose_name_has_it(browser: Browser) -> None:
    page = browser.page("/?find=LLAMA")

    assert f"/models/{MODEL}" in page.links
    assert "/models/smollm2:135m" not in page.links
    assert (
        f"No model here has “{HOSTILE}” in its name."
        in browser.page(f"/?find={quote(HOSTILE)}").text
    )


def test_questions_name_who_else_is_concerned(
    browser: Browser, herdbook: Thread, ollama: Server
) -> None:
    copied = {"source": MODEL, "destination": "twin:latest"}
    httpx.post(f"{ollama.address}/api/copy", json=copied).raise_for_status()
    browser.send("/node/refresh")
    browser.send(
        f"/models/{MODEL}/configuration", version=_version(herdbook), num_ctx="2048"
    )
    load = browser.page(f"/models/{MODEL}/load")
    browser.send(f"/models/{MODEL}/load")
    _until(lambda: "ModelLoaded" in types_of(herdbook, "twin:latest"))

    assert "It is loaded as it is configured: num_ctx 2048." in load.text
    unload = browser.page(f"/models/{MODEL}/unload")
    assert "With it leaves twin:latest: they have the same weights." in unload.text
    delete = browser.page(f"/models/{MODEL}/delete")
    assert "frees next to nothing: twin:latest has the same weights" in delete.text
    assert "same weights as" in browser.page("/").text
    assert "in memory already" in browser.page(f"/models/{MODEL}/load").text
    assert "/models/twin:latest" in browser.page("/node").links


def test_model_in_error_can_be_forgotten(browser: Browser, herdbook: Thread) -> None:
    browser.send("/models/no-such:1b/pull")
    _until(lambda: "PullFailed" in types_of(herdbook, "no-such:1b"))
    asked = browser.page("/models/no-such:1b/delete")
    browser.send("/models/no-such:1b/delete")

    assert "Forget no-such:1b?" in asked.text
    assert "no-such:1b" not in browser.page("/").text


def test_update_says_that_what_is_there_stays(
    browser: Browser, herdbook: Thread
) -> None:
    asked = browser.page(f"/models/{MODEL}/update")
    browser.send(f"/models/{MODEL}/update")
    _until(lambda: "UpdateUnchanged" in types_of(herdbook))

    assert "What has not changed is not fetched again." in asked.text


def test_compare_with_now_compares_with_now(browser: Browser, herdbook: Thread) -> None:
    begin = herdbook.get("/v1/log/head")["position"]
    browser.send(
        f"/models/{MODEL}/configuration", version=_version(herdbook), num_ctx="4096"
    )

    links = browser.page(f"/?as_of={begin}").links

    (compare,) = (link for link in links if link.startswith("/compare"))
    assert "settings.num_ctx" in browser.page(compare).text
