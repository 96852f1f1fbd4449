"""An admin manages tokens in a browser, signed in with a session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from playwright.sync_api import expect
from support.cli_runner import SandboxThread
from support.service_program import RunningService, run_in_thread
from support.web.browser import PageSession

from herdbook.service.auth.token_file_editor import add_token
from herdbook.service.auth.tokens import Role


class Place(NamedTuple):
    """A service with a token file, and the secret of its admin."""

    running: RunningService
    secret: str


@pytest.fixture
def place(tmp_path: Path, ollama: SandboxThread) -> Iterator[Place]:
    file = tmp_path / "tokens.toml"
    secret = add_token(file, "ann", Role.ADMIN)
    with run_in_thread(
        tmp_path / "herd.db", ollama.address, token_file=file
    ) as running:
        yield Place(running, secret)


@pytest.mark.parametrize("script", [True, False])
def test_create_use_and_revoke_a_token(
    script: bool, place: Place, visits: PageSession
) -> None:
    visits.expect_errors("401")
    page = visits.open(place.running, "/node", java_script_enabled=script)
    page.get_by_label("Token").fill(place.secret)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("link", name="Tokens").click()

    page.get_by_label("Name").fill("bob")
    page.get_by_label("Role").select_option("operate")
    page.get_by_role("button", name="Create token").click()
    secret = page.locator("#secret").inner_text()

    def status() -> int:
        headers = {"authorization": f"Bearer {secret}"}
        address = f"{place.running.address}/v1/models"
        return httpx.get(address, headers=headers, trust_env=False).status_code

    assert status() == 200
    if script:
        page.reload()  # does not send the form again
        expect(page.locator("#secret")).to_have_count(0)
    page.get_by_role("link", name="Revoke bob").click()
    expect(page.get_by_role("heading", name="Revoke token bob?")).to_be_visible()
    if script:
        expect(page.get_by_role("link", name="Cancel")).to_be_focused()
    page.get_by_role("button", name="Revoke token").click()
    page.wait_for_url("**/tokens*")
    expect(page.get_by_role("row").filter(has_text="bob")).to_have_count(0)
    assert status() == 401
