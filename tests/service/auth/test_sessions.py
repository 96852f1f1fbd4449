from __future__ import annotations

import base64

import pytest
from support.web.http_fixture import ADMIN, OPERATOR, READER, TOKENS, serve_guarded

from herdbook.service.auth.authentication import Authenticator
from herdbook.service.auth.sessions import SESSION_S, Sessions, cookie_of
from herdbook.service.auth.tokens import Role, Token, new_token, sha256_of
from herdbook.service.settings import ServiceSettings

NOW = 1_800_000_000.0
OLGA = next(token for token in TOKENS if token.name == "olga")


class Wall:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def sessions(
    *tokens: Token, wall: Wall | None = None, secure: bool = False
) -> Sessions:
    return Sessions(tokens or TOKENS, secure=secure, clock=wall or Wall())


def value_of(set_cookie: str) -> str:
    return set_cookie.partition("=")[2].partition(";")[0]


def test_session_refers_to_its_token_without_containing_it() -> None:
    header = sessions().begin("olga")

    session = sessions().session(value_of(header))
    assert session is not None
    assert session.principal.actor == "api:olga"
    assert not session.expired
    assert OPERATOR not in header
    assert OLGA.sha256 not in header


def test_cookie_is_not_available_to_scripts_and_other_sites() -> None:
    plain, secure = sessions().begin("olga"), sessions(secure=True).begin("olga")

    attributes = set(plain.split("; ")[1:])
    assert attributes == {"Path=/", "Max-Age=43200", "HttpOnly", "SameSite=Strict"}
    assert set(secure.split("; ")[1:]) == attributes | {"Secure"}
    assert sessions().end().startswith("herdbook_session=; Path=/; Max-Age=0; HttpOnly")


def test_session_expires() -> None:
    wall = Wall()
    all_of_them = sessions(wall=wall)
    value = value_of(all_of_them.begin("olga"))

    wall.now += SESSION_S - 1
    before = all_of_them.session(value)
    wall.now += 1
    after = all_of_them.session(value)

    assert before is not None
    assert not before.expired
    assert after is not None
    assert after.expired


def test_a_session_follows_the_role_of_its_token() -> None:
    value = value_of(sessions().begin("olga"))
    changed = Token(name="olga", role=Role.READ, sha256=OLGA.sha256)

    session = sessions(changed).session(value)

    assert session is not None
    assert session.principal.role is Role.READ


def test_a_session_ends_with_its_token() -> None:
    value = value_of(sessions().begin("olga"))
    renewed = Token(name="olga", role=Role.ADMIN, sha256=sha256_of(new_token()))
    renamed = Token(name="oleg", role=Role.ADMIN, sha256=OLGA.sha256)

    assert sessions(renewed).session(value) is None
    assert sessions(renamed).session(value) is None
    assert sessions(*(t for t in TOKENS if t.name != "olga")).session(value) is None


def _forgeries(value: str) -> list[str]:
    result, _, proof = value.partition(".")
    later = base64.urlsafe_b64encode(b"olga|9999999999").rstrip(b"=").decode()
    anna = base64.urlsafe_b64encode(f"anna|{int(NOW) + SESSION_S}".encode())
    return [
        "",
        ".",
        "x",
        result,
        f".{proof}",
        f"{result}.",
        f"{result}.{proof}=",
        f"{result}.{proof}.{proof}",
        f"{result}.{proof[:-1]}",
        f"{result}.{proof[:-2]}AA",
        f"{result}={proof}",
        f"{later}.{proof}",
        f"{anna.rstrip(b'=').decode()}.{proof}",
        f"{result}.{'A' * 43}",
        f"{result[:-1]}.{proof}",
        f" {value}",
        value.swapcase(),
        value + "A" * 600,
        "é" * 20,
    ]


@pytest.mark.parametrize("number", range(19))
def test_forged_cookies_are_not_sessions(number: int) -> None:
    forged = _forgeries(value_of(sessions().begin("olga")))

    assert len(forged) == 19
    assert sessions().session(forged[number]) is None


def test_proof_has_only_one_valid_encoding() -> None:
    """The last sign of base64 has bits that mean nothing: they have to be nought."""
    value = value_of(sessions().begin("olga"))
    signs = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

    taken = [s for s in signs if sessions().session(value[:-1] + s) is not None]

    assert taken == [value[-1]]


def test_two_session_cookies_are_ignored() -> None:
    def cookie(*headers: bytes) -> str | None:
        return cookie_of({"headers": [(b"cookie", header) for header in headers]})

    assert cookie(b"a=b; herdbook_session=x; c=d") == "x"
    assert cookie(b"herdbook_session=x; herdbook_session=y") is None
    assert cookie(b"herdbook_session=x", b"herdbook_session=y") is None
    assert cookie(b"herdbook_session=") is None
    assert cookie(b"xherdbook_session=x") is None
    assert cookie() is None


async def test_session_is_accepted_and_survives_a_restart() -> None:
    async with serve_guarded() as server, server.client() as client:
        signed_in = await client.post("/login", data={"token": OPERATOR})
        value = value_of(signed_in.headers["set-cookie"])
        cookie = {"cookie": f"herdbook_session={value}"}
        first = await client.get("/v1/who", headers=cookie)
    async with serve_guarded() as server, server.client() as client:
        second = await client.get("/v1/who", headers=cookie)
        changed = await client.post("/v1/body", headers=cookie)

    assert first.json() == second.json() == {"actor": "api:olga", "role": "operate"}
    assert changed.status_code == 200


async def test_token_takes_precedence_over_a_session() -> None:
    async with serve_guarded() as server, server.client(READER) as client:
        cookie = {
            "cookie": server.authenticator.sessions.begin("olga").partition(";")[0]
        }
        right = await client.get("/v1/who", headers=cookie)
        wrong = await client.get(
            "/v1/who", headers={**cookie, "authorization": "Bearer wrong"}
        )

    assert right.json()["actor"] == "api:ruth"
    assert wrong.status_code == 401


async def test_expired_session_is_not_a_failure_and_is_removed() -> None:
    wall = Wall()
    settings = ServiceSettings(tokens=TOKENS, failures=3)
    authenticator = Authenticator(settings, wall=wall)
    cookie = {"cookie": authenticator.sessions.begin("olga").partition(";")[0]}
    wall.now += SESSION_S
    async with (
        serve_guarded(authenticator=authenticator) as server,
        server.client() as client,
    ):
        answers = [await client.get("/v1/who", headers=cookie) for _ in range(5)]
        still = await client.get(
            "/v1/who", headers={"authorization": f"Bearer {ADMIN}"}
        )

    assert {answer.status_code for answer in answers} == {401}
    assert "Max-Age=0" in answers[0].headers["set-cookie"]
    assert still.status_code == 200


async def test_forged_session_counts_as_a_failure() -> None:
    async with serve_guarded(failures=3) as server, server.client() as client:
        cookie = {"cookie": "herdbook_session=forged.forged"}
        answers = [await client.get("/v1/who", headers=cookie) for _ in range(4)]

    assert [answer.status_code for answer in answers] == [401, 401, 401, 429]
