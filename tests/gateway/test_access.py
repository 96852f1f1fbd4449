"""Permissions at the gateway."""

from __future__ import annotations

import httpx
import pytest
from support.gateway.scripted import Echo, gateway, raw_connection, scripted_server

from herdbook.core import CallerError
from herdbook.gateway.access.checks import Access, Caller

CALLERS = {
    f"key-{role}": Caller(name=f"the-{role}", actor=f"api:the-{role}", role=role)
    for role in ("read", "operate", "admin")
}


def authenticate(secret: str) -> Caller | None:
    return CALLERS.get(secret)


NEEDED = {
    ("GET", "/"): "read",
    ("GET", "/api/tags"): "read",
    ("POST", "/api/show"): "read",
    ("POST", "/v1/chat/completions"): "read",
    ("POST", "/v1/messages"): "read",
    ("POST", "/api/pull"): "operate",
    ("POST", "/api/pull?x=1"): "operate",
    ("POST", "/api/create"): "admin",
    ("POST", "/api/copy"): "admin",
    ("POST", "/api/push"): "admin",
    ("POST", "/api/blobs/sha256-0"): "admin",
    ("DELETE", "/api/delete"): "admin",
    ("DELETE", "/api/%64elete"): "admin",
    ("DELETE", "/api/generate"): "admin",
    ("PUT", "/anything"): "admin",
    ("HEAD", "/api/tags"): "read",
    ("GET", "/api/ps"): "read",
    ("GET", "/api/version"): "read",
    ("GET", "/api/status"): "read",
    ("HEAD", "/api/blobs/sha256-0"): "read",
    ("GET", "/api/experimental/model-recommendations"): "read",
    ("GET", "/v1/models/a"): "read",
    ("POST", "/api/embeddings"): "read",
    ("POST", "/v1/completions"): "read",
    ("POST", "/v1/embeddings"): "read",
    ("POST", "/v1/responses"): "read",
    ("POST", "/v1/systemone"): "read",
    ("POST", "/v1/images/generations"): "read",
    ("POST", "/v1/images/edits"): "read",
    ("POST", "/v1/audio/transcriptions"): "read",
    ("POST", "/v1/messages/count_tokens"): "read",
    ("POST", "/api/experimental/web_search"): "operate",
    ("POST", "/api/experimental/web_fetch"): "operate",
    ("POST", "/api/me"): "admin",
    ("POST", "/api/signout"): "admin",
    ("DELETE", "/api/user/keys/a"): "admin",
    ("DELETE", "/api/tags"): "admin",
    ("POST", "/api/tags"): "admin",
}
ROLES = ("read", "operate", "admin")


@pytest.mark.parametrize("role", ROLES)
async def test_each_path_needs_its_role(role: str) -> None:
    found: dict[tuple[str, str], int] = {}
    texts: dict[tuple[str, str], str] = {}
    key = {"Authorization": f"Bearer key-{role}"}
    async with (
        scripted_server(Echo()) as server,
        gateway(server.url, authenticate=authenticate) as address,
        httpx.AsyncClient(base_url=address) as client,
    ):
        for method, path in NEEDED:
            answer = await client.request(method, path, headers=key)
            found[method, path] = answer.status_code
            texts[method, path] = answer.text
    assert found == {
        each: 200 if ROLES.index(role) >= ROLES.index(needed) else 403
        for each, needed in NEEDED.items()
    }
    refused = [each for each, status in found.items() if status == 403]
    assert all(f"requires the {NEEDED[each]} role" in texts[each] for each in refused)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer nonsense"}, 401),
        ({"Authorization": "Basic abc"}, 401),
        ({"Authorization": "bearer key-read"}, 200),
        ({"X-Api-Key": "key-read"}, 200),
        ({"X-Api-Key": "key-read", "Authorization": "Bearer key-admin"}, 401),
        ({"X-Api-Key": "key-read", "Authorization": "Bearer key-read"}, 200),
    ],
)
async def test_a_token_is_a_key_and_stays_at_the_gateway(
    headers: dict[str, str], status: int
) -> None:
    echo = Echo()
    async with scripted_server(echo) as server:
        async with gateway(server.url, authenticate=authenticate) as address:
            async with httpx.AsyncClient(base_url=address) as client:
                answer = await client.post("/v1/chat/completions", headers=headers)
    assert answer.status_code == status
    if status == 401:
        assert answer.json()["error"]["type"] == "authentication_error"
        assert answer.headers["www-authenticate"] == 'Bearer realm="herdbook"'
        assert echo.heads == []
    else:
        assert b"key-" not in echo.heads[0]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (b"Host: localhost", 200),
        (b"Host: LOCALHOST:80", 200),
        (b"Host: 127.0.0.1:1", 200),
        (b"Host: [::1]:1", 200),
        (b"Host: gateway.lan:11436", 200),
        (b"Host: evil.example", 403),
        (b"Host: localhost.evil.example", 403),
        (b"Host: localhost\r\nHost: localhost", 403),
        (b"X: y", 403),
        (b"Host: localhost\r\nOrigin: http://localhost:3000", 200),
        (b"Host: localhost\r\nOrigin: https://gateway.lan", 200),
        (b"Host: localhost\r\nOrigin: vscode-webview://abc", 200),
        (b"Host: localhost\r\nOrigin: https://evil.example", 403),
        (b"Host: localhost\r\nOrigin: null", 403),
    ],
)
async def test_only_the_names_of_the_gateway_are_answered(
    headers: bytes, status: int
) -> None:
    async with scripted_server(Echo()) as server:
        async with gateway(server.url, hosts=("gateway.lan",)) as address:
            async with raw_connection(address) as client:
                client.send(b"GET / HTTP/1.1\r\n" + headers + b"\r\n\r\n")
                assert (await client.head()).startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "gateway.lan"])
def test_other_machines_need_tokens(host: str) -> None:
    with pytest.raises(CallerError, match="has no tokens"):
        Access(host, (), None)
    assert Access(host, (), authenticate).uses_tokens


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1"])
def test_loopback_is_open_without_tokens(host: str) -> None:
    assert not Access(host, (), None).uses_tokens


TEXTS: list[tuple[str, dict[str, object], bool]] = [
    ("/api/generate", {}, True),
    ("/api/generate", {"prompt": ""}, True),
    ("/api/generate", {"keep_alive": 0}, True),
    ("/api/chat", {"messages": []}, True),
    ("/api/embed", {"input": []}, True),
    ("/api/generate", {"prompt": "x"}, False),
    ("/api/generate", {"PROMPT": "x"}, False),
    ("/api/chat", {"messages": [{"role": "user", "content": "x"}]}, False),
    ("/api/embed", {"input": "x"}, False),
    ("/v1/completions", {"prompt": ""}, False),
]
"""Requests, and whether they only load or unload a model."""


@pytest.mark.parametrize("plain", [True, False])
async def test_load_without_a_prompt_needs_the_role_operate(plain: bool) -> None:
    async with (
        scripted_server(Echo()) as server,
        gateway(server.url, authenticate=authenticate, plain=plain) as address,
        httpx.AsyncClient(base_url=address) as client,
    ):
        for path, body, loads in TEXTS:
            for role in ("read", "operate"):
                key = {"Authorization": f"Bearer key-{role}"}
                given = {"model": "m"} | body
                answer = await client.post(path, json=given, headers=key)
                expected = 403 if loads and role == "read" else 200
                assert answer.status_code == expected, (path, body, role)


ORIGIN = {"Origin": "http://localhost:3000"}
ASKS_FIRST = ORIGIN | {"Access-Control-Request-Method": "POST"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (ASKS_FIRST, 200),
        (ASKS_FIRST | {"Origin": "https://evil.example"}, 403),
        (ORIGIN, 401),
    ],
)
async def test_browser_asks_without_a_token_whether_a_page_may_send_one(
    headers: dict[str, str], status: int
) -> None:
    async with scripted_server(Echo()) as server:
        async with gateway(server.url, authenticate=authenticate) as address:
            async with httpx.AsyncClient(base_url=address) as client:
                answer = await client.options("/api/chat", headers=headers)
    assert answer.status_code == status


@pytest.mark.parametrize("path", ["/api/chat", "/v1/messages"])
async def test_page_that_may_use_the_gateway_reads_its_errors(path: str) -> None:
    async with scripted_server(Echo()) as server:
        async with gateway(server.url, authenticate=authenticate) as address:
            async with httpx.AsyncClient(base_url=address) as client:
                refused = await client.post(path, headers=ORIGIN)
                other = await client.post(path, headers={"Origin": "https://evil.net"})
    assert refused.status_code == 401
    assert refused.headers["Access-Control-Allow-Origin"] == ORIGIN["Origin"]
    assert refused.headers["Vary"] == "Origin"
    assert other.status_code == 403
    assert "Access-Control-Allow-Origin" not in other.headers
