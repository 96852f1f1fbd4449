"""The middleware from outside: requests of strangers and hostile pages."""

from __future__ import annotations

import httpx
import pytest
from support.web.http_fixture import (
    ADMIN,
    OPERATOR,
    READER,
    TOKENS,
    GuardedServer,
    serve_guarded,
    status_of,
)

from herdbook.service.auth.authentication import Authenticator
from herdbook.service.auth.rate_limit import MOST_ADDRESSES, FailedLogins
from herdbook.service.errors import (
    InvalidServiceError,
    TooManyFailuresError,
)
from herdbook.service.settings import ServiceSettings

BEARER = f"Authorization: Bearer {OPERATOR}"


class Ticks:
    """A monotonic clock that is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def statuses(server: GuardedServer, *heads: str) -> list[int]:
    return [status_of(await server.ask(head)) for head in heads]


# Hosts


async def test_only_known_host_names_are_accepted() -> None:
    ours = [
        *("127.0.0.1", "127.0.0.1:11435", "localhost:1", "LocalHost", "localhost."),
        *("[::1]", "[::1]:80", "[0:0:0:0:0:0:0:1]", "Herd.Example:443", "10.1.2.3"),
    ]
    foreign = [
        *("evil.example", "evil.example:11435", "127.0.0.1.evil.example", "127.0.0.2"),
        *("localhost.evil.example", "xlocalhost", "2130706433", "0x7f.1", "[::2]"),
        *(
            "0.0.0.0",
            "[::]",
            "127.0.0.1@evil.example",
            "localhost:99999999",
            "localhost:",
        ),
        *("localhost,evil.example", "localhost/", "", "ä"),
    ]
    async with serve_guarded(hosts=("herd.example", "10.1.2.3:80")) as server:
        heads = [f"GET /v1/who HTTP/1.1\nHost: {h}\n{BEARER}" for h in ours]
        assert set(await statuses(server, *heads)) == {200}
        for host in foreign:
            answer = await server.ask(f"GET /healthz HTTP/1.1\nHost: {host}\n{BEARER}")
            assert status_of(answer) in {400, 421}, host
            assert b"problem+json" in answer


async def test_request_has_exactly_one_host() -> None:
    async with serve_guarded() as server:
        none, two, alike, old = [
            await server.ask(head)
            for head in (
                f"GET /v1/who HTTP/1.1\n{BEARER}",
                f"GET /v1/who HTTP/1.1\nHost: localhost\nHost: evil\n{BEARER}",
                f"GET /v1/who HTTP/1.1\nHost: localhost\nHost: localhost\n{BEARER}",
                f"GET /v1/who HTTP/1.0\n{BEARER}",
            )
        ]

    assert [status_of(a) for a in (none, two, alike, old)] == [400, 400, 400, 421]
    assert all(b"problem+json" in answer for answer in (none, two, alike, old))


async def test_listening_address_is_an_accepted_host() -> None:
    async with (
        serve_guarded(host="127.0.0.3") as server,
        server.client(READER) as client,
    ):
        own = await client.get("/v1/who")
        other = await client.get("/v1/who", headers={"host": "127.0.0.2"})
    async with serve_guarded(host="0.0.0.0") as server, server.client(READER) as client:
        everywhere = await client.get("/v1/who", headers={"host": "0.0.0.0"})

    assert (own.status_code, other.status_code) == (200, 421)
    assert everywhere.status_code == 421


@pytest.mark.parametrize("host", ["*", "http://herd.example", "a b", "", "*.example"])
async def test_invalid_host_name_is_refused_at_the_start(host: str) -> None:
    with pytest.raises(InvalidServiceError, match="is not a valid host name"):
        async with serve_guarded(hosts=(host,)):
            raise AssertionError


@pytest.mark.parametrize(
    "target",
    [
        *("http://evil.example/v1/who", "http://127.0.0.1/v1/who", "*", "evil:80"),
        *("//v1/who", "/v1//who", "/v1/./who", "/static/../v1/who", "/static/%2e%2e/x"),
        *(
            "/static/..%2fv1/who",
            "/static/%5c..%5cv1",
            "/healthz%00",
            "/..",
            "/static//",
        ),
    ],
)
async def test_path_has_only_one_reading(target: str) -> None:
    async with serve_guarded() as server:
        answer = await server.ask(f"GET {target} HTTP/1.1\nHost: localhost")

    assert status_of(answer) == 400
    assert b'"bad_request"' in answer


async def test_no_spelling_of_a_private_path_is_public() -> None:
    paths = [
        *("/v1/who", "/v1/who/", "/V1/who", "/%76%31/who", "/healthz/x", "/static"),
        *("/login/x", "/loginx", "/healthz;/v1/who", "/staticx", "/metrics", "/"),
        *(
            "/readyz%2f..%2fv1",
            "/v1/who?/static/",
            "/v1/who#/static/",
            "/Static/style.css",
        ),
    ]
    async with serve_guarded() as server:
        heads = [f"GET {path} HTTP/1.1\nHost: localhost" for path in paths]
        assert set(await statuses(server, *heads)) <= {400, 401}


# Other sites


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize(
    "header",
    [
        *(
            "Origin: null",
            "Origin: http://evil.example",
            "Origin: https://localhost:80",
        ),
        *("Origin: http://localhost", "Origin: http://localhost:81", "Origin: file://"),
        *("Origin: http://localhost:80@evil", "Origin: http://localhost:80, http://x"),
        *("Origin: ", "Origin: http://localhost:80/", "Sec-Fetch-Site: cross-site"),
        *("Sec-Fetch-Site: same-site", "Sec-Fetch-Site: whatever"),
        "Sec-Fetch-Site: same-origin\nSec-Fetch-Site: cross-site",
        "Origin: http://localhost:8080\nOrigin: http://evil.example",
        "Sec-Fetch-Site: cross-site\nSec-Fetch-Mode: navigate",
    ],
)
async def test_other_sites_cannot_change_anything(method: str, header: str) -> None:
    async with serve_guarded() as server:
        answer = await server.ask(
            f"{method} /v1/body HTTP/1.1\nHost: localhost:8080\n{BEARER}\n{header}"
        )

    assert status_of(answer) == 403
    assert b'"cross_site"' in answer
    assert b"access-control" not in answer.lower()


@pytest.mark.parametrize(
    "header",
    [
        *("X: no browser", "Origin: http://localhost:8080", "Sec-Fetch-Site: none"),
        "Origin: HTTP://LOCALHOST:8080".replace("HTTP", "http"),
        "Origin: http://localhost:8080\nSec-Fetch-Site: same-origin",
    ],
)
async def test_own_pages_and_programs_can_change_things(header: str) -> None:
    async with serve_guarded() as server:
        answer = await server.ask(
            f"POST /v1/body HTTP/1.1\nHost: localhost:8080\n{BEARER}\n{header}"
        )

    assert status_of(answer) == 200


async def test_https_proxy_gives_the_site_its_scheme_and_port() -> None:
    head = f"POST /v1/body HTTP/1.1\nHost: herd.example\n{BEARER}\nOrigin: "
    async with serve_guarded(secure=True, hosts=("herd.example",)) as server:
        result = await statuses(
            server,
            f"{head}https://herd.example",
            f"{head}https://herd.example:443",
            f"{head}http://herd.example",
            f"{head}https://herd.example:444",
        )

    assert result == [200, 200, 403, 403]


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_other_sites_cannot_read_but_can_link_to_pages(site: str) -> None:
    asks = f"Host: localhost\n{BEARER}\nSec-Fetch-Site: {site}"
    follows = f"{asks}\nSec-Fetch-Mode: navigate\nSec-Fetch-Dest: document"
    frames = f"{asks}\nSec-Fetch-Mode: navigate\nSec-Fetch-Dest: iframe"
    async with serve_guarded() as server:
        refused = await statuses(
            server,
            f"GET / HTTP/1.1\n{asks}",
            f"GET / HTTP/1.1\n{frames}",
            f"GET /v1/who HTTP/1.1\n{asks}",
            f"GET /v1/who HTTP/1.1\n{follows}",
            f"GET /metrics HTTP/1.1\n{follows}",
            f"HEAD /v1/who HTTP/1.1\n{asks}",
            f"GET /static/style.css HTTP/1.1\n{asks}",
        )
        led = await statuses(server, f"GET / HTTP/1.1\n{follows}")

    assert set(refused) == {403}
    assert led == [200]


async def test_preflight_request_is_not_allowed() -> None:
    async with serve_guarded() as server:
        preflight = await server.ask(
            "OPTIONS /v1/body HTTP/1.1\nHost: localhost\nOrigin: http://evil.example\n"
            "Access-Control-Request-Method: POST"
        )
        plain = await server.ask(f"OPTIONS /v1/who HTTP/1.1\nHost: localhost\n{BEARER}")

    assert status_of(preflight) == 403
    assert status_of(plain) == 204
    assert b"access-control-allow" not in (preflight + plain).lower()


# Credentials


async def test_each_token_has_its_role() -> None:
    async with serve_guarded() as server, server.client() as client:
        for token, name, role, post, admin in (
            (READER, "ruth", "read", 403, 403),
            (OPERATOR, "olga", "operate", 200, 403),
            (ADMIN, "anna", "admin", 200, 200),
        ):
            headers = {"authorization": f"bearer  {token}"}
            result = await client.get("/v1/who", headers=headers)
            assert result.json() == {"actor": f"api:{name}", "role": role}
            changed = await client.post("/v1/body", content=b"x", headers=headers)
            assert changed.status_code == post
            managed = await client.get("/v1/admin", headers=headers)
            assert managed.status_code == admin


async def test_without_tokens_every_user_is_local() -> None:
    async with serve_guarded(tokens=()) as server, server.client("anything") as client:
        result = await client.get("/v1/who")

    assert result.json() == {"actor": "api:local", "role": "admin"}


async def test_health_stylesheet_and_login_are_public() -> None:
    paths = ("/healthz", "/readyz", "/static/style.css", "/login")
    async with serve_guarded() as server, server.client() as client:
        result = [(await client.get(path)).status_code for path in paths]
        head = await client.head("/v1/who")

    assert set(result) == {200}
    assert head.status_code == 401
    assert head.content == b""


@pytest.mark.parametrize("path", ["/v1/who", "/metrics", "/v1/nothing"])
async def test_program_without_a_token_gets_instructions(path: str) -> None:
    async with serve_guarded() as server, server.client() as client:
        answer = await client.get(path, headers={"accept": "text/html"})

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "unauthorized"


async def test_browser_without_a_session_is_redirected_to_the_login() -> None:
    html = {"accept": "text/html,application/xhtml+xml"}
    async with serve_guarded() as server, server.client() as client:
        led = await client.get("/models/hf.co/a%20b%2Fc?x=1", headers=html)
        page = await client.get(led.headers["location"])
        posted = await client.post("/models/a", headers=html)
        program = await client.get("/models/a")
        longest = await client.get(f"/{'a' * 2000}", headers=html)

    assert led.status_code == 303
    assert led.headers["location"] == "/login?next=/models/hf.co/a%2520b%252Fc"
    assert 'name="next" value="/models/hf.co/a%20b%2Fc"' in page.text
    assert posted.status_code == program.status_code == 401
    assert longest.headers["location"] == "/login?next=/"


@pytest.mark.parametrize(
    "credential",
    [
        "Authorization: Bearer wrong",
        f"Authorization: Bearer {OPERATOR}x",
        f"Authorization: Bearer {OPERATOR[:-1]}",
        f"Authorization: Bearer {OPERATOR} {OPERATOR}",
        f"Authorization: Bearer {OPERATOR}\nAuthorization: Bearer {ADMIN}",
        "Authorization: Bearer",
        "Authorization: Bearer \xff\xfe",
        f"Authorization: {OPERATOR}",
        f"Authorization: Basic {OPERATOR}",
        f"Cookie: herdbook_session={OPERATOR}",
        f"X-Api-Key: {OPERATOR}",
    ],
)
async def test_wrong_tokens_are_refused(credential: str) -> None:
    async with serve_guarded() as server:
        answer = await server.ask(
            f"GET /v1/who HTTP/1.1\nHost: localhost\n{credential}"
        )

    assert status_of(answer) == 401
    assert OPERATOR.encode() not in answer


async def test_token_in_the_query_is_ignored() -> None:
    async with serve_guarded() as server, server.client() as client:
        names = ("token", "access_token", "authorization", "api_key")
        result = {
            (await client.get("/v1/who", params={name: ADMIN})).status_code
            for name in names
        }

    assert result == {401}


# Failures


async def asked_from(
    server: GuardedServer, source: str, token: str, times: int = 1
) -> list[int]:
    transport = httpx.AsyncHTTPTransport(local_address=source)
    async with server.client(token, transport=transport) as client:
        return [(await client.get("/v1/who")).status_code for _ in range(times)]


async def test_client_that_fails_too_often_is_refused_and_others_are_not() -> None:
    ticks = Ticks()
    authenticator = Authenticator(
        ServiceSettings(tokens=TOKENS, failures=3), monotonic=ticks
    )
    async with serve_guarded(authenticator=authenticator) as server:
        failed = await asked_from(server, "127.0.0.2", "wrong", 5)
        right = await asked_from(server, "127.0.0.2", ADMIN)
        other = await asked_from(server, "127.0.0.1", ADMIN)
        async with server.client(
            transport=httpx.AsyncHTTPTransport(local_address="127.0.0.2")
        ) as client:
            without = (await client.get("/v1/who")).status_code
            healthy = (await client.get("/healthz")).status_code
            result = await client.get("/v1/who", headers={"authorization": "Bearer x"})
        ticks.now += 59.9
        before = await asked_from(server, "127.0.0.2", ADMIN)
        ticks.now += 0.2
        after = await asked_from(server, "127.0.0.2", ADMIN)

    assert failed == [401, 401, 401, 429, 429]
    assert (right, other, without, healthy) == ([429], [200], 401, 200)
    assert result.headers["retry-after"] == "60"
    assert result.json()["code"] == "too_many_failures"
    assert (before, after) == ([429], [200])


async def test_missing_token_is_not_a_failure() -> None:
    async with serve_guarded(failures=2) as server, server.client() as client:
        for _ in range(5):
            assert (await client.get("/v1/who")).status_code == 401
        headers = {"authorization": f"Bearer {READER}"}
        assert (await client.get("/v1/who", headers=headers)).status_code == 200


def test_oldest_of_many_addresses_is_forgotten() -> None:
    failures = FailedLogins(most=1, within_s=60)

    for number in range(MOST_ADDRESSES + 10):
        failures.add(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")

    assert len(failures) == MOST_ADDRESSES
    failures.check("10.0.0.0")
    with pytest.raises(TooManyFailuresError):
        failures.check("10.0.0.10")


def test_ipv6_network_counts_as_one_address() -> None:
    failures = FailedLogins(most=2, within_s=60)
    failures.add("2001:db8:1:2::1")
    failures.add("2001:db8:1:2:ffff::7")
    failures.add("::ffff:10.0.0.1")
    failures.add("10.0.0.1")

    failures.check("2001:db8:1:3::1")
    for address in ("2001:db8:1:2:3::", "10.0.0.1", "::ffff:10.0.0.1"):
        with pytest.raises(TooManyFailuresError):
            failures.check(address)


# Changes


async def test_read_only_applies_to_every_user() -> None:
    async with serve_guarded(read_only=True) as server, server.client(ADMIN) as client:
        changed = await client.post("/v1/body", content=b"x")
        read = await client.get("/v1/who")
        signed_in = await client.post("/login", data={"token": ADMIN})

    assert (changed.status_code, changed.json()["code"]) == (403, "read_only")
    assert read.status_code == 200
    assert signed_in.status_code == 303


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "PROPFIND", "post", "QUERY"])
async def test_unknown_method_also_needs_a_role(method: str) -> None:
    async with serve_guarded() as server:
        answer = await server.ask(
            f"{method} /v1/who HTTP/1.1\nHost: localhost\n"
            f"Authorization: Bearer {READER}"
        )

    assert status_of(answer) == 403
