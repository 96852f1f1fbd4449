"""The page of the nodes, with a second server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect
from support.cli_runner import SandboxThread
from support.service_program import RunningService, run_in_thread
from support.web.browser import PageSession


@pytest.fixture
def alone(tmp_path: Path, ollama: SandboxThread) -> Iterator[RunningService]:
    """Return a service with one node."""
    with run_in_thread(tmp_path / "herd.db", ollama.address) as running:
        yield running


def test_node_is_added_drained_and_removed(
    alone: RunningService, visits: PageSession, slow_ollama: SandboxThread
) -> None:
    page = visits.open(alone, "/node")
    page.get_by_role("link", name="Add a server").click()
    page.get_by_label("Name").fill("gpu1")
    page.get_by_label("Address").fill(slow_ollama.address)
    page.get_by_role("button", name="Add node").click()

    row = page.get_by_role("row").filter(has_text="gpu1")
    expect(row).to_contain_text("connected")
    expect(page.locator("#toast")).to_contain_text("node/gpu1 added")
    expect(page.get_by_role("navigation", name="Pages")).to_contain_text("Nodes")

    page.get_by_role("button", name="Drain gpu1").click()
    expect(row).to_contain_text("drained")
    expect(page.locator("#toast").get_by_role("link").last).to_have_text(
        f"#{alone.get('/v1/log/head')['position']}"
    )

    page.get_by_role("link", name="Remove gpu1").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("link", name="Cancel")).to_be_focused()
    dialog.get_by_role("button", name="Remove node").click()

    expect(row).to_have_count(0)
    assert [one["name"] for one in alone.get("/v1/nodes")] == ["local"]


def test_open_pages_follow_the_nodes(
    alone: RunningService, visits: PageSession, slow_ollama: SandboxThread
) -> None:
    visits.expect_errors("404 (Not Found)")
    models = visits.open(alone)
    server = visits.open(alone, "/node")
    added = {"name": "gpu1", "url": slow_ollama.address}
    assert alone.http.post("/v1/nodes", json=added).status_code == 201

    for page in (models, server):
        pages = page.get_by_role("navigation", name="Pages")
        expect(pages.get_by_role("link", name="Nodes")).to_be_visible()
        expect(page.get_by_role("main")).to_contain_text("gpu1")
    expect(server).to_have_url(f"{alone.address}/nodes")

    models.goto("/node?node=gpu1")
    assert alone.http.delete("/v1/nodes/gpu1").status_code == 200
    main = models.get_by_role("main")
    expect(main).to_contain_text("'gpu1' is not a node in this log")
    expect(models.get_by_role("navigation", name="Pages")).to_contain_text("Server")


def test_page_that_cannot_be_updated_says_so(
    alone: RunningService, visits: PageSession
) -> None:
    visits.expect_errors("503 (Service Unavailable)")
    page = visits.open(alone)
    connection = page.locator("#connection")
    expect(connection).to_have_text("live")

    page.route(f"{alone.address}/", lambda route: route.fulfill(status=503))
    uses = "/v1/models/llama3.2:3b/uses"
    assert alone.http.post(uses, json={}).status_code < 300
    expect(connection).to_contain_text("not up to date since")
    page.unroute_all()
    expect(connection).to_have_text("live")
    expect(page.get_by_role("main")).to_contain_text("by api:local")
