"""Admins list, create and revoke tokens on a page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from support.service_program import ServiceThread, run_in_thread
from support.web.html_client import HOSTILE, HtmlClient, open_client
from support.web.http_fixture import TOKENS

from herdbook.service.auth.token_file_editor import add_token
from herdbook.service.auth.tokens import Role


class Place(NamedTuple):
    """A service with a token file, and an admin's client."""

    running: ServiceThread
    admin: HtmlClient
    reader: str


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    file = tmp_path / "tokens.toml"
    secret = add_token(file, "ann", Role.ADMIN)
    reader = add_token(file, "rob", Role.READ)
    with (
        run_in_thread(
            tmp_path / "herd.db", "127.0.0.1:9", token_file=file, tokens=TOKENS[:1]
        ) as running,
        open_client(running.address, secret) as admin,
    ):
        yield Place(running, admin, reader)


def test_list_shows_names_roles_and_last_use(place: Place) -> None:
    page = place.admin.page("/tokens")

    assert "ann you admin just now" in page.text
    assert "rob read not known" in page.text
    assert "ruth read not known from the environment" in page.text
    assert "/tokens" in place.admin.page("/node").links


def test_created_token_is_shown_once_and_is_valid(place: Place) -> None:
    answer = place.admin.send("/tokens", 200, name="bob", role="operate")

    found = re.search(r'id="secret">(hb_[\w-]+)<', answer.text)
    assert found is not None
    assert "no-store" in answer.headers["cache-control"]
    with open_client(place.running.address, found[1]) as bob:
        bob.page("/")
    again = place.admin.page("/tokens")
    assert "bob operate" in again.text
    assert found[1] not in again.text


def test_revoked_token_stops_working(place: Place) -> None:
    with open_client(place.running.address, place.reader) as rob:
        rob.page("/")
        asked = place.admin.page("/tokens/rob/revoke")
        done = place.admin.send("/tokens/rob/revoke").headers["location"]

        assert "Revoke token rob?" in asked.text
        assert rob.http.get("/v1/models").status_code == 401
    page = place.admin.page(done)
    assert "rob" not in page.text
    assert "The token has been revoked." in page.text


@pytest.mark.parametrize(
    ("name", "role", "status"),
    [("ann", "read", 409), (HOSTILE, "read", 400), ("bob", "owner", 400)],
)
def test_invalid_token_is_refused(
    place: Place, name: str, role: str, status: int
) -> None:
    answer = place.admin.send("/tokens", status, name=name, role=role)

    assert "<script>alert" not in answer.text


def test_last_admin_and_unknown_tokens_are_not_revoked(place: Place) -> None:
    place.admin.send("/tokens/ann/revoke", 409)
    place.admin.send("/tokens/nobody/revoke", 404)
    place.admin.page("/tokens/nobody/revoke", 404)
    assert "Did you mean 'rob'?" in place.admin.page("/tokens/rop/revoke", 404).text


def test_only_admins_see_tokens(place: Place) -> None:
    with open_client(place.running.address, place.reader) as rob:
        rob.page("/tokens", 403)
        assert "/tokens" not in rob.page("/node").links
        rob.send("/tokens", 403, name="mallory", role="admin")
    assert "mallory" not in place.admin.page("/tokens").text


def test_form_without_proof_is_refused(place: Place) -> None:
    place.running.http.cookies.clear()
    answer = place.running.http.post(
        "/tokens", data={"name": "mallory", "role": "admin"}
    )

    assert answer.status_code in (401, 403)


def test_service_without_tokens_explains_how_to_create_one(
    herdbook: ServiceThread,
) -> None:
    with open_client(herdbook.address) as anyone:
        page = anyone.page("/tokens")

    assert "The service has no tokens" in page.text


def test_user_of_a_token_file_can_sign_out(tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    secret = add_token(file, "ann", Role.ADMIN)
    with (
        run_in_thread(tmp_path / "herd.db", "127.0.0.1:9", token_file=file) as running,
        open_client(running.address, secret) as ann,
    ):
        assert 'action="/logout"' in ann.http.get("/").text


def test_page_of_a_service_without_tokens_has_nothing_to_sign_out(
    tmp_path: Path,
) -> None:
    with (
        run_in_thread(tmp_path / "herd.db", "127.0.0.1:9") as running,
        open_client(running.address) as anyone,
    ):
        assert 'action="/logout"' not in anyone.http.get("/").text
