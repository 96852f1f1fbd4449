"""Tokens are listed, created and revoked while the service runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.service_program import RunningService, run_in_thread

from herdbook.service.auth.token_file_editor import add_token
from herdbook.service.auth.tokens import Role, Token, new_token, sha256_of

FIXED_SECRET = new_token()
FIXED = Token(name="env", role=Role.READ, sha256=sha256_of(FIXED_SECRET))


class Service:
    """A service with a token file, and the secret of its admin."""

    def __init__(self, running: RunningService, file: Path, secret: str) -> None:
        self.running = running
        self.file = file
        self.secret = secret

    def send(
        self, method: str, path: str, secret: str = "", **given: Any
    ) -> httpx.Response:
        """Send a request with a token; the admin's by default."""
        headers = {"authorization": f"Bearer {secret or self.secret}"}
        return self.running.http.request(method, path, headers=headers, **given)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    file = tmp_path / "tokens.toml"
    secret = add_token(file, "ann", Role.ADMIN)
    with run_in_thread(
        tmp_path / "herd.db", "127.0.0.1:9", token_file=file, tokens=(FIXED,)
    ) as running:
        yield Service(running, file, secret)


def test_created_token_works_at_once_and_until_it_is_revoked(service: Service) -> None:
    created = service.send("POST", "/v1/tokens", json={"name": "bob"})
    assert created.status_code == 201
    assert created.json()["role"] == "read"
    secret = created.json()["token"]
    assert secret not in service.file.read_text()
    assert service.send("GET", "/v1/status", secret).status_code == 200

    revoked = service.send("DELETE", "/v1/tokens/bob")

    assert (revoked.status_code, revoked.content) == (204, b"")
    assert service.send("GET", "/v1/status", secret).status_code == 401


NO_LIMITS: dict[str, object] = {
    "models": [],
    "max_requests": None,
    "tokens_per_day": None,
}


def test_token_list_has_names_roles_and_last_use_without_secrets(
    service: Service,
) -> None:
    listed = service.send("GET", "/v1/tokens")

    ann, env = listed.json()
    assert ann["last_used_at"] is not None
    assert ann | {"last_used_at": None} == {
        "name": "ann",
        "role": "admin",
        "last_used_at": None,
        "changeable": True,
        "limits": NO_LIMITS,
    }
    assert env == {
        "name": "env",
        "role": "read",
        "last_used_at": None,
        "changeable": False,
        "limits": NO_LIMITS,
    }
    assert "sha256" not in listed.text


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "detail"),
    [
        ("POST", "/v1/tokens", {"name": "ann"}, 409, "token ann already exists"),
        (
            "POST",
            "/v1/tokens",
            {"name": "x", "max_requests": 0},
            400,
            "has a max_requests that is not a whole number",
        ),
        ("POST", "/v1/tokens", {"name": "a b"}, 400, "is not a valid token name"),
        ("POST", "/v1/tokens", {"name": "x", "sha256": "y"}, 400, "is unknown"),
        ("DELETE", "/v1/tokens/anm", None, 404, "Did you mean 'ann'?"),
        ("DELETE", "/v1/tokens/env", None, 409, "comes from HERDBOOK_TOKENS"),
        ("DELETE", "/v1/tokens/ann", None, 409, "is the last one with the admin role"),
    ],
)
def test_invalid_changes_are_refused(
    service: Service, method: str, path: str, body: Any, status: int, detail: str
) -> None:
    before = service.file.read_bytes()

    answer = service.send(method, path, json=body)

    assert answer.status_code == status, answer.text
    assert detail in answer.json()["detail"]
    assert service.file.read_bytes() == before


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/tokens"), ("POST", "/v1/tokens"), ("DELETE", "/v1/tokens/ann")],
)
def test_only_admins_manage_tokens(service: Service, method: str, path: str) -> None:
    body = {"name": "eve", "role": "admin"} if method == "POST" else None

    answer = service.send(method, path, FIXED_SECRET, json=body)

    assert answer.status_code == 403
    assert "eve" not in service.file.read_text()


def test_service_without_a_token_file_cannot_change_tokens(tmp_path: Path) -> None:
    with run_in_thread(tmp_path / "herd.db", "127.0.0.1:9") as running:
        assert running.get("/v1/tokens") == []
        created = running.http.post("/v1/tokens", json={"name": "bob"})

    assert created.status_code == 409
    assert "--tokens" in created.json()["remedy"]


def test_file_that_cannot_be_edited_is_a_conflict(service: Service) -> None:
    service.file.write_text("[tokens")

    answer = service.send("POST", "/v1/tokens", json={"name": "bob"})

    assert (answer.status_code, answer.json()["code"]) == (409, "token_conflict")


def test_readiness_lists_a_file_that_is_not_valid(service: Service) -> None:
    service.file.write_text("[tokens")
    service.send("POST", "/v1/tokens", json={"name": "bob"})

    ready = service.running.http.get("/readyz")

    assert "token_file" in {each["task"] for each in ready.json()["failing"]}
    assert service.send("GET", "/v1/tokens").status_code == 200


def test_event_stream_of_a_revoked_token_ends(tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    admin = add_token(file, "ann", Role.ADMIN)
    reader = add_token(file, "bob", Role.READ)
    with run_in_thread(
        tmp_path / "herd.db", "127.0.0.1:9", token_file=file, heartbeat_s=0.2
    ) as running:
        service = Service(running, file, admin)
        headers = {"authorization": f"Bearer {reader}"}
        with running.http.stream("GET", "/v1/events/stream", headers=headers) as stream:
            lines = stream.iter_lines()
            assert next(lines).startswith("retry:")
            service.send("DELETE", "/v1/tokens/bob")
            rest = list(lines)

    assert 'data: {"reason":"revoked"}' in rest
