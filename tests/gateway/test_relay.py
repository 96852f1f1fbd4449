"""What the gateway relays, byte by byte."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from support.gateway.scripted import (
    OK,
    CollectedUses,
    Echo,
    gateway,
    raw_connection,
    request_of,
    scripted_server,
    until,
)

from herdbook.events.facts import UseOutcome

POST = b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
GET = b"GET /api/tags HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def test_a_request_keeps_its_method_target_headers_and_body() -> None:
    echo = Echo()
    async with scripted_server(echo) as server, gateway(server.url) as address:
        async with raw_connection(address) as client:
            client.send(
                b"PATCH /any/path?q=%20x&y HTTP/1.1\r\nHost: localhost:1\r\n"
                b"X-Odd-CASE:  two  words\r\nAccept: */*\r\nAccept: text/plain\r\n"
                b"Authorization: Bearer abc\r\nContent-Length: 5\r\n\r\nhello"
            )
            assert await client.head() + await client.exactly(2) == OK
        (head, body) = echo.requests[0]

        assert body == b"hello"
        assert head.split(b"\r\n") == [
            b"PATCH /any/path?q=%20x&y HTTP/1.1",
            b"Host: " + server.url.removeprefix("http://").encode(),
            b"X-Odd-CASE: two  words",
            b"Accept: */*",
            b"Accept: text/plain",
            b"Authorization: Bearer abc",
            b"Content-Length: 5",
            b"",
            b"",
        ]


async def test_headers_of_one_connection_are_not_sent_on() -> None:
    answer = (
        b"HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Mine\r\nX-Mine: 1\r\n"
        b"Keep-Alive: timeout=5\r\nX-Other: 2\r\nContent-Length: 0\r\n\r\n"
    )
    echo = Echo(answer)
    async with scripted_server(echo) as server, gateway(server.url) as address:
        async with raw_connection(address) as client:
            client.send(
                b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: X-Secret, close\r\n"
                b"X-Secret: 1\r\nTE: trailers\r\nProxy-Authorization: x\r\n"
                b"X-Kept: 1\r\n\r\n"
            )
            received = await client.rest()
        head = echo.requests[0][0].lower()

    assert b"x-secret" not in head
    assert b"te:" not in head
    assert b"proxy-authorization" not in head
    assert b"x-kept: 1" in head
    assert received == (
        b"HTTP/1.1 200 OK\r\nX-Other: 2\r\nContent-Length: 0\r\n"
        b"Connection: close\r\n\r\n"
    )


async def test_one_connection_to_the_server_serves_many_requests() -> None:
    echo = Echo()
    async with scripted_server(echo) as server, gateway(server.url) as address:
        for _ in range(3):
            async with raw_connection(address) as client:
                for _ in range(5):
                    client.send(GET)
                    assert await client.head() + await client.exactly(2) == OK
        assert len(echo.requests) == 15
        assert server.connections == 1


async def test_chunks_arrive_as_they_are_sent() -> None:
    steps = asyncio.Queue[bytes]()

    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await request_of(reader)
        writer.write(b"HTTP/1.1 200 Fine\r\nTransfer-Encoding: chunked\r\n\r\n")
        while data := await steps.get():
            writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        writer.write(b"0\r\nX-Trailer: 1\r\n\r\n")

    async with scripted_server(script) as server, gateway(server.url) as address:
        async with raw_connection(address) as client:
            client.send(GET)
            head = await client.head()
            assert head == b"HTTP/1.1 200 Fine\r\nTransfer-Encoding: chunked\r\n\r\n"
            for text in (b"one", b"two words", b"\r\n\x00"):
                steps.put_nowait(text)
                expected = b"%x\r\n%b\r\n" % (len(text), text)
                assert await client.exactly(len(expected)) == expected
            steps.put_nowait(b"")
            assert await client.exactly(5) == b"0\r\n\r\n"


async def test_an_upload_in_chunks_arrives_piece_by_piece() -> None:
    echo = Echo()
    async with scripted_server(echo) as server, gateway(server.url) as address:
        async with raw_connection(address) as client:
            client.send(
                b"POST /x HTTP/1.1\r\nHost: localhost\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n"
            )
            await asyncio.sleep(0.05)
            client.send(b"2\r\nde\r\n0\r\nTrailer: 1\r\n\r\n")
            assert await client.head() + await client.exactly(2) == OK
        assert echo.requests[0][1] == b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "received"),
    [
        (b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n", None),
        (b"HTTP/1.1 204 No Content\r\n\r\n", None),
        (b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", None),
        (
            b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK,
            OK,
        ),
    ],
)
async def test_answers_without_a_body_end_at_their_head(
    answer: bytes, received: bytes | None
) -> None:
    expected = received or answer
    async with scripted_server(Echo(answer)) as server, gateway(server.url) as address:
        async with raw_connection(address) as client:
            for _ in range(2):
                client.send(GET)
                assert await client.exactly(len(expected)) == expected


async def test_the_answer_to_head_has_no_body() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"
    async with scripted_server(Echo(answer)) as server, gateway(server.url) as address:
        async with raw_connection(address) as client:
            for _ in range(3):
                client.send(b"HEAD /api/tags HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert await client.head() == answer
        assert server.connections == 1


async def test_an_answer_that_ends_with_the_connection_is_complete() -> None:
    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await request_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nall of it")

    async with scripted_server(script) as server, gateway(server.url) as address:
        async with raw_connection(address) as client:
            client.send(GET)
            assert (await client.head()).endswith(b"chunked\r\n\r\n")
            assert await client.exactly(19) == b"9\r\nall of it\r\n0\r\n\r\n"
        async with raw_connection(address) as client:
            client.send(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
            expected = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it"
            assert await client.rest() == expected


async def test_a_client_that_expects_a_continue_gets_one() -> None:
    echo = Echo()
    async with scripted_server(echo) as server, gateway(server.url) as address:
        async with raw_connection(address) as client:
            client.send(
                b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n"
                b"Expect: 100-continue\r\n\r\n"
            )
            assert await client.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.send(b"hi")
            assert await client.head() + await client.exactly(2) == OK
        assert b"expect" not in echo.requests[0][0].lower()


async def test_a_whole_url_as_target_is_reduced_to_its_path() -> None:
    echo = Echo()
    async with scripted_server(echo) as server, gateway(server.url) as address:
        async with raw_connection(address) as client:
            client.send(b"GET http://localhost/a?b HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await client.head()
        assert echo.requests[0][0].startswith(b"GET /a?b HTTP/1.1\r\n")


async def test_a_path_in_the_address_of_the_server_comes_first() -> None:
    echo = Echo()
    async with (
        scripted_server(echo) as server,
        gateway(f"{server.url}/below") as address,
    ):
        async with raw_connection(address) as client:
            client.send(GET)
            await client.head()
        assert echo.requests[0][0].startswith(b"GET /below/api/tags HTTP/1.1\r\n")


async def test_an_early_answer_ends_an_upload() -> None:
    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 3\r\n\r\nbad")
        await reader.read()

    async with scripted_server(script) as server, gateway(server.url) as address:
        async with raw_connection(address) as client:
            client.send(POST % 1_000_000 + b"some")
            received = await client.rest()
        await until(lambda: server.open == 0)

    assert received.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert received.endswith(b"Connection: close\r\n\r\nbad")


async def test_a_client_that_leaves_ends_the_request_to_the_server() -> None:
    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await request_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"1\r\nx\r\n")
        await reader.read()

    uses = CollectedUses()
    async with scripted_server(script) as server, gateway(server.url, uses) as address:
        async with raw_connection(address) as client:
            client.send(POST % 2 + b"{}")
            await client.head()
            assert server.open == 1
            client.leave()
            await until(lambda: server.open == 0, 1.0)
        assert (await uses.first()).outcome is UseOutcome.CLIENT_LEFT


async def answers_paths(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Answer each request with its path."""
    while True:
        path = (await request_of(reader))[0].split()[1]
        length = b"Content-Length: %d" % len(path)
        writer.write(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n\r\n" + path)


def bodies_in(received: bytes) -> list[bytes]:
    """Return the bodies of some answers without line ends in them."""
    answers = received.split(b"HTTP/1.1 200 OK\r\n")[1:]
    return [answer.partition(b"\r\n\r\n")[2] for answer in answers]


async def test_a_client_that_closes_its_half_has_left() -> None:
    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await request_of(reader)
        await reader.read()

    async with scripted_server(script) as server, gateway(server.url) as address:
        async with raw_connection(address) as client:
            client.send(POST % 2 + b"{}")
            await until(lambda: server.open == 1)
            client.writer.write_eof()
            await until(lambda: server.open == 0, 1.0)


async def test_a_client_that_only_reads_may_close_its_half() -> None:
    async with scripted_server(answers_paths) as server, gateway(server.url) as address:
        async with raw_connection(address) as client:
            client.send(b"GET /1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            client.writer.write_eof()
            assert bodies_in(await client.rest()) == [b"/1"]


@pytest.mark.parametrize("size", [1, 100, 1 << 20])
async def test_requests_sent_ahead_are_answered_in_order(size: int) -> None:
    sent = b"".join(
        b"POST /%d HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b"
        b"GET /x%d HTTP/1.1\r\nHost: localhost\r\n\r\n"
        % (number, number * 200, b"b" * number * 200, number)
        for number in range(20)
    )
    paths = [b"/%b%d" % (kind, n) for n in range(20) for kind in (b"", b"x")]
    async with scripted_server(answers_paths) as server, gateway(server.url) as address:
        async with raw_connection(address) as client:
            for at in range(0, len(sent), size):
                client.send(sent[at : at + size])
                if size < 100 and at % 50 == 0:
                    await asyncio.sleep(0)
            client.writer.write_eof()
            assert bodies_in(await client.rest()) == paths


async def test_a_client_that_sends_too_far_ahead_is_throttled() -> None:
    release = asyncio.Event()

    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await release.wait()
        await answers_paths(reader, writer)

    ahead = b"GET /ahead HTTP/1.1\r\nHost: localhost\r\n\r\n" * 250_000  # 11 MB
    async with scripted_server(script) as server, gateway(server.url) as address:
        async with raw_connection(address) as client:
            client.send(ahead)
            await until(lambda: server.open == 1)
            held = 0
            while held != (held := client.writer.transport.get_write_buffer_size()):
                await asyncio.sleep(0.05)
            assert held > 1_000_000
            release.set()
            await client.exactly(50_000)


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
@pytest.mark.parametrize("size", [1, 1_000])
async def test_an_offer_of_another_protocol_is_ignored(
    protocol: bytes, size: int
) -> None:
    offer = (
        b"Host: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        b"Upgrade: %b\r\nHTTP2-Settings: AAMAAABk\r\n" % protocol
    )
    sent = (
        b"POST /1 HTTP/1.1\r\n" + offer + b"Content-Length: 3\r\n\r\nabc"
        b"POST /2 HTTP/1.1\r\n"
        + offer
        + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        b"GET /3 HTTP/1.1\r\n" + offer + b"\r\n"
    )
    heads: list[bytes] = []

    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while True:
            head, body = await request_of(reader)
            heads.append(head.lower())
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
            writer.write(head.split()[1] if b"b" in body else b"/-")

    async with scripted_server(script) as server, gateway(server.url) as address:
        async with raw_connection(address) as client:
            for at in range(0, len(sent), size):
                client.send(sent[at : at + size])
                await asyncio.sleep(0)
            client.writer.write_eof()
            assert bodies_in(await client.rest()) == [b"/1", b"/2", b"/-"]
    assert len(heads) == 3
    assert not any(b"upgrade" in head or b"http2" in head for head in heads)


async def test_many_streams_at_once_all_arrive() -> None:
    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await request_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(20):
            writer.write(b"8\r\n%08d\r\n" % number)
            await asyncio.sleep(0.005)
        writer.write(b"0\r\n\r\n")

    uses = CollectedUses()
    async with scripted_server(script) as server, gateway(server.url, uses) as address:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=address, limits=limits) as client:
            asked = (client.post("/api/chat", json={"model": "m"}) for _ in range(200))
            answers = await asyncio.gather(*asked)

    whole = "".join(f"{number:08d}" for number in range(20))
    assert all(answer.text == whole for answer in answers)
    assert [use.outcome for use in uses.all] == [UseOutcome.COMPLETED] * 200
