"""Signing in: the user, the permissions, and sessions after a restart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from support.cli_runner import SandboxThread
from support.ports import free_port
from support.service_program import RunningService, run_in_thread
from support.web.browser import (
    PageSession,
    events_and_actors,
    expect_state,
    row,
)
from support.web.http_fixture import OPERATOR, READER, TOKENS

from herdbook.service.auth.tokens import Role, Token, new_token, sha256_of

AGENTS = new_token()
ALL = (*TOKENS, Token(name="agents", role=Role.OPERATE, sha256=sha256_of(AGENTS)))


@pytest.fixture(scope="module")
def guarded(
    tmp_path_factory: pytest.TempPathFactory, ollama: SandboxThread
) -> Iterator[RunningService]:
    """Return a service that wants to know who asks."""
    log = tmp_path_factory.mktemp("tokens") / "herd.db"
    with run_in_thread(log, ollama.address, tokens=ALL) as running:
        running.http.headers["authorization"] = f"Bearer {AGENTS}"
        yield running


def sign_in(page: Page, token: str) -> None:
    """Sign in, as a person does."""
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in").click()


@pytest.mark.parametrize("script", [True, False])
def test_signs_in_acts_as_the_token_and_signs_out(
    script: bool, guarded: RunningService, visits: PageSession
) -> None:
    visits.expect_errors("401")
    model = "gemma3:4b" if script else "phi3:3.8b"
    page = visits.open(guarded, f"/models/{model}", java_script_enabled=script)
    expect(page.get_by_label("Token")).to_be_focused()

    sign_in(page, "hb_not-the-one-that-was-given")
    expect(page.get_by_role("alert")).to_be_visible()
    sign_in(page, OPERATOR)
    expect(page).to_have_url(f"{guarded.address}/models/{model}")
    page.get_by_role("link", name="load").click()
    page.get_by_role("main").last.get_by_role("button", name="load").click()
    expect_state(page, guarded, model, "loaded", script=script)
    page.get_by_role("link", name="Models", exact=True).click()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Token")).to_be_visible()
    page.goto(f"/models/{model}")

    expect(page.get_by_label("Token")).to_be_visible()
    assert ("LoadStarted", "api:olga") in events_and_actors(guarded, model)


def test_reader_sees_why_nothing_can_be_done(
    guarded: RunningService, visits: PageSession
) -> None:
    page = visits.open(guarded)
    sign_in(page, READER)

    why = "This requires the operate role. ruth has the read role."
    expect(page.get_by_role("main")).to_contain_text(why)
    button = row(page, "smollm2:135m").get_by_role("link", name="load")
    expect(button).to_have_attribute("aria-disabled", "true")
    expect(button).to_have_accessible_description(why)
    expect(page.get_by_label("Pull a model")).to_be_disabled()
    page.goto("/models/smollm2:135m")
    expect(page.locator("a[data-dialog]")).to_have_count(0)
    expect(page.locator("#actions")).to_contain_text("ruth has the read role")
    page.get_by_text("Change settings").click()
    expect(page.get_by_role("button", name="save")).to_be_disabled()
    expect(page.get_by_role("status").first).to_have_text("live")


def test_operator_may_not_delete(guarded: RunningService, visits: PageSession) -> None:
    page = visits.open(guarded, "/models/smollm2:135m")
    sign_in(page, OPERATOR)

    button = page.locator("#actions").get_by_role("link", name="delete")
    expect(button).to_have_attribute("aria-disabled", "true")
    expect(button).to_have_accessible_description(
        "This requires the admin role. olga has the operate role."
    )


def test_the_page_says_who_configured_a_model(
    guarded: RunningService, visits: PageSession
) -> None:
    answer = guarded.http.put(
        "/v1/models/mistral:7b/configuration",
        json={"settings": {"num_ctx": 4096}, "note": "short answers"},
        headers={"if-match": "*"},
    )
    answer.raise_for_status()
    page = visits.open(guarded)
    sign_in(page, READER)

    page.get_by_role("link", name="mistral:7b", exact=True).click()

    one = page.get_by_role("region", name="Settings").get_by_role("row")
    expect(one.filter(has_text="num_ctx")).to_contain_text("api:agents")
    expect(one.filter(has_text="num_ctx")).to_contain_text("short answers")
    history = page.get_by_role("region", name="History").get_by_role("listitem")
    expect(history.first).to_contain_text("api:agents")


def test_session_outlives_a_restart(
    tmp_path: Path, ollama: SandboxThread, visits: PageSession
) -> None:
    visits.expect_errors(
        "ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE", "ERR_EMPTY_RESPONSE"
    )
    log, port = tmp_path / "herd.db", free_port()
    with run_in_thread(log, ollama.address, tokens=ALL, port=port) as running:
        page = visits.open(running)
        sign_in(page, OPERATOR)
        connection = page.locator("#connection")
        expect(connection).to_have_text("live")
    expect(connection).to_contain_text("disconnected since")

    with run_in_thread(log, ollama.address, tokens=ALL, port=port) as running:
        expect(connection).to_have_text("live")
        page.reload()
        expect(row(page, "gemma3:4b")).to_be_visible()
        expect(page.get_by_role("button", name="Sign out")).to_be_visible()
        page.close()
