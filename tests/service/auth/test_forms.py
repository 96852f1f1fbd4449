"""Forms that change something contain proof that a page of the service sent them."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from support.cli_runner import SandboxThread
from support.service_program import ServiceThread, run_in_thread
from support.web.html_client import MODEL, open_client
from support.web.http_fixture import ADMIN, OPERATOR, TOKENS

from herdbook.service.auth.forms import FormProofs
from herdbook.service.auth.tokens import Principal, Role

OLGA = Principal(name="olga", role=Role.OPERATE)
FORM = "application/x-www-form-urlencoded"
ACTIONS = (
    f"/models/{MODEL}/delete",
    f"/models/{MODEL}/use",
    f"/models/{MODEL}/configuration",
    "/node/refresh",
)


def scope_of(set_cookie: str | None) -> dict[str, object]:
    """Return the scope of a request that brings back a cookie."""
    cookie = (set_cookie or "").partition(";")[0].encode()
    return {"headers": [(b"cookie", cookie)] if cookie else []}


@pytest.mark.parametrize("path", ACTIONS)
def test_form_without_proof_is_refused(herdbook: ServiceThread, path: str) -> None:
    before = herdbook.get("/v1/log/head")
    with open_client(herdbook.address) as looking:
        bare = looking.http.post(path)
        looking.proof()  # now it has the cookie
        refused = [
            bare,
            looking.http.post(path, data={"version": "1"}),
            looking.http.post(path, data={"proof": "", "version": "1"}),
            looking.http.post(path, data={"proof": "a" * 64, "version": "1"}),
            looking.http.post(path, data={"proof": "\ud7ff", "version": "1"}),
        ]

    assert [answer.status_code for answer in refused] == [403] * 5
    assert "Reload the page" in refused[-1].text
    assert herdbook.get("/v1/log/head") == before


def test_proof_is_valid_only_in_its_browser(herdbook: ServiceThread) -> None:
    path = f"/models/{MODEL}/use"
    with open_client(herdbook.address) as one, open_client(herdbook.address) as other:
        proof = one.proof()
        other.proof()
        stolen = other.http.post(path, data={"proof": proof})
        again = one.proof()
        own = one.http.post(path, data={"proof": proof})

    assert (stolen.status_code, own.status_code) == (403, 303)
    assert again == proof  # a page outlives the reload of another


def test_proof_survives_a_restart_and_a_new_session(
    tmp_path: Path, ollama: SandboxThread
) -> None:
    path = f"/models/{MODEL}/use"
    log = tmp_path / "herd.db"
    with (
        run_in_thread(log, ollama.address, tokens=TOKENS) as running,
        open_client(running.address) as looking,
    ):
        looking.http.post("/login", data={"token": OPERATOR})
        proof = looking.proof()
        looking.http.post("/login", data={"token": OPERATOR})
        renewed = looking.http.post(path, data={"proof": proof})
        cookies = dict(looking.http.cookies)
        looking.http.post("/login", data={"token": ADMIN})
        of_another = looking.http.post(path, data={"proof": proof})
    with run_in_thread(log, ollama.address, tokens=TOKENS) as running:
        restarted = httpx.post(
            f"{running.address}{path}", data={"proof": proof}, cookies=cookies
        )

    assert (renewed.status_code, of_another.status_code) == (303, 403)
    assert restarted.status_code == 303


def test_planted_cookie_is_not_a_proof() -> None:
    ours = FormProofs(TOKENS, secure=True)
    theirs = FormProofs((), secure=True)
    _, cookie = theirs.prove({"headers": []}, OLGA)
    planted = scope_of(cookie)

    assert theirs.prove(planted, OLGA)[0] != ours.prove(planted, OLGA)[0]
    assert cookie is not None
    assert "; HttpOnly; SameSite=Strict; Secure" in cookie
    assert ours.prove(planted, OLGA)[1] is None
    for value in ("", "short", "a b" * 20, "a" * 100):
        scope = {"headers": [(b"cookie", f"herdbook_form={value}".encode())]}
        assert ours.prove(scope, OLGA)[1] is not None


def test_program_with_a_token_does_not_need_a_proof(
    tmp_path: Path, ollama: SandboxThread
) -> None:
    with (
        run_in_thread(tmp_path / "herd.db", ollama.address, tokens=TOKENS) as running,
        open_client(running.address, OPERATOR) as looking,
    ):
        assert looking.http.post(f"/models/{MODEL}/use").status_code == 303


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"purpose=\xff", FORM, 400),
        (b"purpose=%ff", FORM, 400),
        (b"purpose=%zz%", FORM, 403),
        (b"a=1&" * 101, FORM, 400),
        (b"a=1", "text/plain", 415),
        (b"a=1", f"{FORM}; charset=utf-16", 415),
        (b"a=1", f"{FORM}; charset=nonsense", 415),
        (b"--x\r\n", "multipart/form-data; boundary=x", 415),
        (b"--x\r\n", "multipart/form-data", 415),
        (b"{}", "application/json", 415),
        (b"x" * 70_000, FORM, 413),
    ],
)
def test_forms_that_cannot_be_read(
    herdbook: ServiceThread, content: bytes, kind: str, status: int
) -> None:
    answer = herdbook.http.post(
        f"/models/{MODEL}/use", content=content, headers={"content-type": kind}
    )

    assert answer.status_code == status
