"""Requests that are refused, and the limits of what a client may take."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from support.gateway.scripted import (
    OK,
    CollectedUses,
    Echo,
    RawConnection,
    gateway,
    raw_connection,
    scripted_server,
    until,
)

HOST = b"Host: localhost\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
HIDDEN = b"GET /hidden HTTP/1.1\r\n" + HOST + b"\r\n"


SMUGGLING = {
    "two lengths": b"Content-Length: 0\r\nContent-Length: 4\r\n\r\n",
    "two equal lengths": b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
    "a list of lengths": b"Content-Length: 4, 4\r\n\r\nabcd",
    "a signed length": b"Content-Length: +4\r\n\r\nabcd",
    "length and chunks": b"Content-Length: 4\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
    "chunks and length": CHUNKED + b"Content-Length: 4\r\n\r\n0\r\n\r\n",
    "an unknown coding": b"Transfer-Encoding: xchunked\r\n\r\n",
    "two codings": b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunks twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "identity": b"Transfer-Encoding: identity\r\n\r\n",
    "a space before the colon": b"Content-Length : 4\r\n\r\nabcd",
    "a folded header": b"X: a\r\n Content-Length: 4\r\n\r\n",
    "a bare line feed": b"X: a\nContent-Length: 4\r\n\r\n",
    "a bare carriage return": b"X: a\rContent-Length: 4\r\n\r\n",
    "a null byte": b"X: a\x00b\r\n\r\n",
    "a bad chunk": b"Transfer-Encoding: chunked\r\n\r\nG\r\nabc",
    "a chunk longer than it says": b"Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
    "a huge chunk": b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
}


@pytest.mark.parametrize("name", SMUGGLING)
async def test_an_ambiguous_request_is_refused_and_hides_nothing(name: str) -> None:
    echo = Echo()
    async with scripted_server(echo) as server, gateway(server.url) as address:
        async with raw_connection(address) as client:
            client.send(b"POST /x HTTP/1.1\r\n" + HOST + SMUGGLING[name] + HIDDEN)
            received = await client.rest()

    assert received.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"Connection: close\r\n" in received
    assert set(json.loads(received.partition(b"\r\n\r\n")[2])) == {"error"}
    assert not any(b"hidden" in head for head in echo.heads)


@pytest.mark.parametrize(
    ("start", "headers", "status"),
    [
        (b"CONNECT localhost:1 HTTP/1.1", b"", 501),
        (b"GET / HTTP/2.0", b"", 505),
        (b"BREW / HTTP/1.1", b"", 400),
        (b"GET /\x80 HTTP/1.1", b"", 400),
        (b"POST / HTTP/1.0", b"Transfer-Encoding: chunked\r\n", 400),
        (b"GET / HTTP/1.1", b"X: %b\r\n" % (b"x" * 70_000), 431),
        (b"GET / HTTP/1.1", b"X: x\r\n" * 200, 431),
        (b"GET /%b HTTP/1.1" % (b"x" * 70_000), b"", 431),
    ],
)
async def test_unsupported_requests_are_refused(
    start: bytes, headers: bytes, status: int
) -> None:
    async with scripted_server(Echo()) as server, gateway(server.url) as address:
        async with raw_connection(address) as client:
            client.send(start + b"\r\n" + HOST + headers + b"\r\n")
            received = await client.rest()
        assert server.connections == 0
    assert received.startswith(b"HTTP/1.1 %d " % status)


async def test_headers_that_never_end_are_refused() -> None:
    async with scripted_server(Echo()) as server, gateway(server.url) as address:
        async with raw_connection(address) as client:
            client.send(b"GET / HTTP/1.1\r\nX: ")
            for _ in range(70):
                client.send(b"x" * 1_000)
                await asyncio.sleep(0)
            assert (await client.rest()).startswith(b"HTTP/1.1 431 ")


async def test_bytes_after_a_complete_request_cannot_spoil_its_answer() -> None:
    echo = Echo()
    async with scripted_server(echo) as server, gateway(server.url) as address:
        async with raw_connection(address) as client:
            client.send(b"GET /first HTTP/1.1\r\n" + HOST + b"\r\n\x00" + HIDDEN)
            received = await client.rest()
    assert received.startswith(OK + b"HTTP/1.1 400 ")
    assert len(echo.heads) == 1


async def test_a_refused_client_may_send_its_body_and_reads_the_answer() -> None:
    async with scripted_server(Echo()) as server, gateway(server.url) as address:
        async with raw_connection(address) as client:
            client.send(b"POST /x HTTP/1.1\r\nHost: evil\r\nContent-Length: 9\r\n\r\n")
            client.send(b"123456789")
            assert (await client.rest()).startswith(b"HTTP/1.1 403 ")


async def test_a_bad_chunk_after_the_answer_began_cuts_the_connection() -> None:
    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        await reader.read()

    uses = CollectedUses()
    async with scripted_server(script) as server, gateway(server.url, uses) as address:
        async with raw_connection(address) as client:
            client.send(b"POST /api/chat HTTP/1.1\r\n" + HOST)
            client.send(b"Transfer-Encoding: chunked\r\n\r\n")
            await client.head()
            client.send(b"nonsense")
            assert await client.rest() == b"1\r\nx\r\n"
        await until(lambda: server.open == 0)
    assert [use.failure for use in uses.all] == ["invalid_request"]


@pytest.mark.parametrize(
    ("sent", "limit"),
    [
        (b"GET / HTTP/1.1\r\nHo", "head_within_s"),
        (
            b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 9\r\n\r\nabc",
            "body_within_s",
        ),
    ],
)
async def test_a_request_that_stops_is_refused(sent: bytes, limit: str) -> None:
    limits: dict[str, Any] = {limit: 0.1}
    async with scripted_server(Echo()) as server:
        async with gateway(server.url, **limits) as address:
            async with raw_connection(address) as client:
                client.send(sent)
                assert (await client.rest()).startswith(b"HTTP/1.1 408 ")
            await until(lambda: server.open == 0)


async def test_an_idle_connection_is_closed() -> None:
    async with scripted_server(Echo()) as server:
        async with gateway(server.url, idle_within_s=0.1) as address:
            async with raw_connection(address) as client:
                assert await client.rest() == b""


async def test_a_client_that_does_not_close_after_a_refusal_is_cut_off() -> None:
    async with scripted_server(Echo()) as server, gateway(server.url) as address:
        async with raw_connection(address) as client:
            client.send(b"nonsense\r\n\r\n")
            await client.rest()
            await until(lambda: not sends(client))


def sends(client: RawConnection) -> bool:
    """Send a few bytes; return whether the connection is open."""
    client.send(b"more")
    return not client.writer.transport.is_closing()


async def test_connections_beyond_the_limit_are_refused() -> None:
    async with scripted_server(Echo()) as server:
        async with gateway(server.url, connections=2) as address:
            async with raw_connection(address), raw_connection(address):
                async with raw_connection(address) as third:
                    assert (await third.rest()).startswith(b"HTTP/1.1 503 ")
            await asyncio.sleep(0.05)
            async with raw_connection(address) as client:
                client.send(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
                assert await client.head() + await client.exactly(2) == OK
