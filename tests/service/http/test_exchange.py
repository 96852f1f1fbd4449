"""Request bodies are bounded, responses are complete and have their headers."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from support.web.http_fixture import OPERATOR, READER, serve_guarded, status_of

from herdbook.core import HerdbookError
from herdbook.service.auth.tokens import Role
from herdbook.service.errors import UnauthorizedError
from herdbook.service.http.asgi import Receive, Scope, Send
from herdbook.service.http.exchange import SECURITY_HEADERS
from herdbook.service.middleware import principal_of, require

BEARER = f"Authorization: Bearer {OPERATOR}"
CLOSE = "Connection: close"
POST = f"POST /v1/body HTTP/1.1\r\nHost: localhost\r\n{BEARER}\r\n"


async def test_body_that_is_declared_too_long_is_not_read() -> None:
    async with serve_guarded(body_bytes=1000) as server:
        answer = await server.raw(
            f"{POST}Content-Length: 1001\r\n{CLOSE}\r\n\r\n".encode()
        )
        enormous = await server.raw(
            f"{POST}Content-Length: {10**18}\r\n{CLOSE}\r\n\r\n".encode()
        )
        async with server.client(OPERATOR) as client:
            fits = await client.post("/v1/body", content=b"x" * 1000)

    assert status_of(answer) == status_of(enormous) == 413
    assert b'"too_large"' in answer
    assert fits.json() == {"bytes": 1000}


async def test_chunked_body_is_counted() -> None:
    async def pieces(number: int) -> object:
        for _ in range(number):
            yield b"x" * 100

    async with (
        serve_guarded(body_bytes=1000) as server,
        server.client(OPERATOR) as client,
    ):
        over = await client.post("/v1/body", content=pieces(11))  # type: ignore[arg-type]
        fits = await client.post("/v1/body", content=pieces(10))  # type: ignore[arg-type]

    assert (over.status_code, over.json()["code"]) == (413, "too_large")
    assert fits.json() == {"bytes": 1000}


async def test_client_that_sends_far_too_much_receives_the_reason() -> None:
    async with serve_guarded() as server, server.client(OPERATOR) as client:
        for _ in range(2):
            answer = await client.post("/v1/body", content=b"x" * 5_000_000)
            assert answer.status_code == 413


@pytest.mark.parametrize("length", ["-1", "1, 2", "0x10", "+5", "5 5", "1e3"])
async def test_an_invalid_length_is_refused(length: str) -> None:
    async with serve_guarded() as server:
        answer = await server.ask(
            f"POST /v1/body HTTP/1.1\nHost: localhost\n{BEARER}\n"
            f"Content-Length: {length}"
        )

    assert status_of(answer) == 400


async def test_two_lengths_are_refused() -> None:
    async with serve_guarded() as server:
        answer = await server.raw(
            f"{POST}{CLOSE}\r\n"
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
            "0\r\n\r\nGET /".encode()
        )

    assert status_of(answer) == 400
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("how", ["Content-Length: 10", "Transfer-Encoding: chunked"])
async def test_missing_body_times_out(how: str) -> None:
    loop = asyncio.get_running_loop()
    async with serve_guarded(request_within_s=0.4) as server:
        began = loop.time()
        answer = await server.raw(
            f"{POST}{how}\r\n\r\n".encode(),
            *(b"1", 0.1, b"1", 0.1, b"1", 0.1),
        )
        took = loop.time() - began

    assert status_of(answer) == 408
    assert b'"request_timeout"' in answer
    assert 0.35 < took < 2


async def test_slow_body_within_the_timeout_is_accepted() -> None:
    async with serve_guarded(request_within_s=5) as server:
        answer = await server.raw(
            f"{POST}{CLOSE}\r\nContent-Length: 3\r\n\r\n".encode(),
            *(b"1", 0.05, b"2", 0.05, b"3"),
        )

    assert b'{"bytes":3}' in answer


async def test_answer_can_take_longer_than_a_request() -> None:
    async with (
        serve_guarded(request_within_s=0.1) as server,
        server.client(READER) as client,
    ):
        answer = await client.get("/v1/soon")

    assert answer.text == "soon"


# Heads


async def test_long_head_is_refused_in_one_piece_and_in_many() -> None:
    head = f"GET /v1/who HTTP/1.1\r\nHost: localhost\r\n{BEARER}\r\n{CLOSE}\r\n"
    long = b"X: " + b"a" * 17_000
    many = "".join(f"X{number}: a\r\n" for number in range(2500)).encode()
    async with serve_guarded() as server:
        one = await server.raw(head.encode() + long + b"\r\n\r\n")
        unended = await server.raw(head.encode() + b"X: " + b"a" * 200_000)
        lines = await server.raw(head.encode() + many + b"\r\n")
        target = await server.ask(f"GET /{'a' * 17_000} HTTP/1.1\nHost: localhost")
        fits = await server.raw(head.encode() + b"X: " + b"a" * 15_000 + b"\r\n\r\n")

    for answer in (one, unended, lines, target):
        assert status_of(answer) == 413
        assert b'"too_large"' in answer
    assert status_of(fits) == 200


# Answers


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (f"GET /v1/who HTTP/1.1\nHost: localhost\n{BEARER}", 200),
        (f"GET /v1/loose HTTP/1.1\nHost: localhost\n{BEARER}", 200),
        (f"GET /v1/broken HTTP/1.1\nHost: localhost\n{BEARER}", 500),
        (f"GET /v1/nothing HTTP/1.1\nHost: localhost\n{BEARER}", 404),
        (f"DELETE /v1/who HTTP/1.1\nHost: localhost\n{BEARER}", 405),
        ("GET /v1/who HTTP/1.1\nHost: localhost", 401),
        ("GET / HTTP/1.1\nHost: localhost\nAccept: text/html", 303),
        ("GET /v1/who HTTP/1.1\nHost: evil", 421),
        ("GET /login HTTP/1.1\nHost: localhost", 200),
        ("GET /v1/who HTTX/1.1\nHost: localhost", 400),
        ("nonsense", 400),
    ],
)
async def test_every_answer_has_the_security_headers(head: str, status: int) -> None:
    async with serve_guarded() as server:
        answer = await server.ask(head)

    assert status_of(answer) == status
    lines = answer.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    result = [tuple(line.split(": ", 1)) for line in lines]
    for header in SECURITY_HEADERS.items():
        assert [pair for pair in result if pair[0] == header[0]] == [header]
    stored = [value for name, value in result if name == "cache-control"]
    assert stored == (["max-age=60"] if "loose" in head else ["no-store"])
    assert not [name for name, _ in result if name.startswith("access-control")]
    assert not [name for name, _ in result if name == "server"]


async def test_unexpected_errors_reveal_no_details() -> None:
    async with serve_guarded() as server, server.client(READER) as client:
        answer = await client.get("/v1/broken")

    assert answer.status_code == 500
    assert answer.json()["code"] == "unexpected"
    assert "foresaw" not in answer.text


async def test_connection_serves_requests_in_turn_and_closes_after_a_refusal() -> None:
    head = "Host: localhost\r\n"
    async with serve_guarded() as server:
        answers = await server.raw(
            (
                f"{POST}Content-Length: 2\r\n\r\nab"
                f"GET /v1/who HTTP/1.1\r\n{head}{BEARER}\r\n\r\n"
                f"POST /v1/body HTTP/1.1\r\n{head}Content-Length: 3\r\n\r\nabc"
                f"GET /v1/who HTTP/1.1\r\n{head}{BEARER}\r\n{CLOSE}\r\n\r\n"
            ).encode()
        )

    found = [status_of(b"HTTP/1.1 " + one) for one in answers.split(b"HTTP/1.1 ")[1:]]
    assert found == [200, 200, 401]
    assert b"connection: close" in answers


async def test_application_cannot_miss_a_refused_body() -> None:
    async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(3):
            with contextlib.suppress(HerdbookError):
                await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"never mind"})

    async with serve_guarded(app=stubborn, body_bytes=10) as server:
        answer = await server.raw(
            f"{POST}{CLOSE}\r\nTransfer-Encoding: chunked\r\n\r\n".encode(),
            b"14\r\n" + b"x" * 20 + b"\r\n0\r\n\r\n",
        )

    assert status_of(answer) == 413
    assert b"never mind" not in answer


async def test_incomplete_answer_is_cut_off() -> None:
    async def half(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("in its midst")

    async with serve_guarded(app=half) as server:
        answer = await server.ask(f"GET /v1/who HTTP/1.1\nHost: localhost\n{BEARER}")

    assert answer.endswith(b"4\r\nhalf\r\n")  # and no last chunk


def test_public_paths_have_no_user() -> None:
    with pytest.raises(UnauthorizedError):
        principal_of({"state": {}})
    with pytest.raises(UnauthorizedError):
        require({}, Role.READ)
