"""Pages with several nodes: lists, actions on one node, and its own pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.cli_runner import SandboxThread
from support.service_program import RunningService
from support.waiting import wait_until
from support.web.html_client import HtmlClient, open_client

from herdbook.service.dashboard import paging

SHARED = "gemma3:4b"
NEW = "llama3.2:1b"


@pytest.fixture
def browser(
    herdbook: RunningService, fleet: dict[str, SandboxThread]
) -> Iterator[HtmlClient]:
    """Return a client of a service with three nodes."""
    with open_client(herdbook.address) as client:
        yield client


def test_models_are_shown_by_node_and_by_model(browser: HtmlClient) -> None:
    every = browser.http.get("/").text
    alone = browser.http.get("/?node=gpu1").text
    matrix = browser.http.get("/?view=matrix").text

    for node in ("gpu1", "local"):
        assert f'href="/models/{SHARED}?node={node}"' in every
        assert f'href="/models/{SHARED}?node={node}"' in matrix
    assert 'class="plain matrix"' in matrix
    assert 'id="bulk"' not in every
    assert 'id="bulk"' in alone
    assert f'href="/models/{SHARED}?node=gpu1"' in alone
    assert "node=local" not in alone.partition('id="models"')[2]
    assert 'href="/nodes"' in every
    browser.page("/?node=elsewhere", 404)


def test_a_page_of_a_model_is_that_of_its_node(browser: HtmlClient) -> None:
    named = browser.http.get(f"/models/{SHARED}?node=gpu1").text
    assert f"/models/{SHARED}/load?node=gpu1" in named
    assert f"/models/{SHARED}/configuration?node=gpu1" in named
    assert 'href="/node?node=gpu1"' in named

    unnamed = browser.http.get(f"/models/{SHARED}")
    assert unnamed.status_code == 303
    assert unnamed.headers["location"] == f"/?find={SHARED.replace(':', '%3A')}"


def test_actions_are_done_on_the_node_of_the_page(
    browser: HtmlClient, herdbook: RunningService
) -> None:
    question = browser.page(f"/models/{SHARED}/load?node=gpu1")
    assert "On node gpu1." in question.text

    loaded = browser.send(f"/models/{SHARED}/load?node=gpu1")

    assert loaded.headers["location"].startswith(f"/models/{SHARED}?node=gpu1")
    wait_until(lambda: bool(herdbook.get("/v1/ps?node=gpu1")["models"]))
    assert herdbook.get("/v1/ps?node=local")["models"] == []
    browser.send(
        f"/models/{SHARED}/configuration?node=gpu1",
        num_ctx="2048",
        version=str(herdbook.get(f"/v1/models/{SHARED}?node=gpu1")["version"]),
    )
    there = herdbook.get(f"/v1/models/{SHARED}/configuration?node=gpu1")
    assert there["settings"] == {"num_ctx": 2048}
    asked = browser.http.get(f"/pull?model={NEW}&node=gpu2")
    assert asked.headers["location"].endswith("/pull?node=gpu2")
    chosen = browser.http.get(f"/pull?model={NEW}&node=")
    assert "/pull?node=" in chosen.headers["location"]
    deleted = browser.send(
        "/bulk?node=gpu1", 200, do="delete", models="smollm2:135m"
    ).text
    assert "1 model deleted" in deleted
    left = herdbook.get("/v1/models")
    assert {one["node"] for one in left if one["name"] == "smollm2:135m"} == {"local"}


def test_every_page_is_shown_for_all_nodes_and_for_one(browser: HtmlClient) -> None:
    for path in ("/roles", "/usage", "/log", "/nodes", "/compare?from=1", "/node"):
        browser.page(path)
        both = "&" if "?" in path else "?"
        browser.page(f"{path}{both}node=gpu1")
        browser.page(f"{path}{both}node=gpu1&as_of=1")
    assert "on gpu1" in browser.page("/roles").text
    assert "gpu2" in browser.page("/node?node=gpu2").text
    browser.page("/free?size=1GB&node=gpu1")
    browser.page("/free?size=1GB", 409)
    browser.send("/node/refresh?node=gpu1")


def test_nodes_are_added_drained_and_removed_on_their_page(
    browser: HtmlClient, herdbook: RunningService, fleet: dict[str, SandboxThread]
) -> None:
    browser.send("/nodes/gpu1/drain")
    assert herdbook.get("/v1/nodes/gpu1")["settings"]["drained"] is True
    assert "connected, drained" in browser.page("/nodes").text
    browser.send("/nodes/gpu1/undrain")
    assert "Remove node gpu1?" in browser.page("/nodes/gpu1/remove").text
    browser.send("/nodes/gpu1/remove")
    assert [one["name"] for one in herdbook.get("/v1/nodes")] == ["gpu2", "local"]
    added = browser.send("/nodes", name="gpu1", url=fleet["gpu1"].address, vram="24GB")
    assert 'class="toast"' in browser.http.get(added.headers["location"]).text
    assert herdbook.get("/v1/nodes/gpu1")["settings"]["tags"] == {"vram": "24GB"}
    browser.send("/nodes", 400, name="", url="x")
    browser.send("/nodes/gpu1/explode", 404)
    browser.send("/nodes/gpu9/drain", 404)


def test_a_lost_node_is_named(
    browser: HtmlClient, herdbook: RunningService, fleet: dict[str, SandboxThread]
) -> None:
    fleet["gpu1"].close()
    herdbook.operate("refresh", node="gpu1")

    page = browser.page("/")

    assert "no answer since" in page.text
    assert "server: no answer" in page.text
    assert "no answer since" in browser.page("/nodes").text


def test_long_lists_have_pages(
    browser: HtmlClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paging, "MOST_ROWS", 2)

    first = browser.page("/?sort=name")
    second = browser.page("/?sort=name&start=3")
    beyond = browser.page(f"/?sort=name&start={'9' * 5000}")

    assert "Models 1 to 2 of" in first.text
    assert "Models 3 to 4 of" in second.text
    assert "Previous" not in first.text
    assert "Next" not in beyond.text
    assert 'href="/?sort=name&amp;start=3"' in browser.http.get("/?sort=name").text
    assert "Nodes 3 to 3 of 3" in browser.page("/nodes?start=3").text
    assert "Models 1 to 2 of" in browser.page("/?view=matrix").text
    assert "Models 1 to 2 of" in browser.page("/?start=x").text


def test_links_of_a_page_stay_on_its_node(browser: HtmlClient) -> None:
    server = browser.http.get("/node?node=gpu1").text
    model = browser.http.get(f"/models/{SHARED}?node=gpu1").text
    table = browser.http.get("/figures?of=disk&node=gpu1").text
    usage = browser.http.get("/usage?node=gpu1").text

    assert "/figures?of=disk&amp;span=day&amp;node=gpu1" in server
    assert f"/log?model={SHARED.replace(':', '%3A')}&amp;node=gpu1" in model
    assert "/figures?of=disk&amp;span=week&amp;node=gpu1" in table
    assert 'href="/node?node=gpu1"' in table
    assert "/usage?range=7d&amp;node=gpu1" in usage


def test_log_of_a_model_has_the_events_of_all_nodes(browser: HtmlClient) -> None:
    every = browser.http.get(f"/log?model={SHARED}").text
    one = browser.http.get(f"/log?model={SHARED}&node=gpu1").text

    rows = [text.partition('<ol class="events"')[2] for text in (every, one)]
    assert all(f"?node={node}" in rows[0] for node in ("gpu1", "local"))
    assert "?node=gpu1" in rows[1]
    assert "?node=local" not in rows[1]


def test_a_node_is_compared_with_itself(browser: HtmlClient) -> None:
    page = browser.http.get("/compare?from=1&node=gpu1").text

    assert "<option selected>gpu1</option>" in page
    assert "smollm2:135m" in page.partition('id="difference"')[2]
