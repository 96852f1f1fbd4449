"""The server: slow clients are disconnected, and it stops in time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import httpx
import pytest
from support.web.http_fixture import (
    OPERATOR,
    READER,
    TOKENS,
    GuardedServer,
    application,
    serve_guarded,
    status_of,
)

from herdbook.service.errors import InvalidServiceError
from herdbook.service.http.asgi import Receive, Scope, Send
from herdbook.service.middleware import Guard
from herdbook.service.server import Server, address_of, listening, serve
from herdbook.service.settings import ServiceSettings

HEAD = f"Host: localhost\r\nAuthorization: Bearer {OPERATOR}\r\n"
WHO = f"GET /v1/who HTTP/1.1\r\n{HEAD}\r\n".encode()
LAST_WHO = f"GET /v1/who HTTP/1.1\r\n{HEAD}Connection: close\r\n\r\n".encode()


def now() -> float:
    return asyncio.get_running_loop().time()


@asynccontextmanager
async def connected(
    server: GuardedServer, *, taking: int | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a connection; with ``taking`` one whose reader takes few bytes."""
    made = socket.socket()
    made.setblocking(False)
    if taking is not None:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, taking)
    await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", server.port))
    limit = 1024 if taking is not None else 65536
    reader, writer = await asyncio.open_connection(sock=made, limit=limit)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


async def gone(reader: asyncio.StreamReader) -> float:
    """Wait until a connection is gone; return how long that took."""
    began = now()
    with contextlib.suppress(ConnectionError):
        while await reader.read(65536):
            pass
    return now() - began


# Heads that do not come


@pytest.mark.parametrize("begun", [b"", b"G", b"GET / HTTP/1.1\r\nHost: localh"])
async def test_missing_first_head_times_out(begun: bytes) -> None:
    async with (
        serve_guarded(request_within_s=0.3) as server,
        connected(server) as (a, b),
    ):
        b.write(begun)
        took = await gone(a)

    assert 0.2 < took < 1.5


async def test_slow_head_is_cut_off_while_others_are_served() -> None:
    async with (
        serve_guarded(request_within_s=0.6) as server,
        connected(server) as (a, b),
    ):
        cut = asyncio.ensure_future(gone(a))
        for byte in WHO:
            b.write(bytes([byte]))
            await asyncio.sleep(0.02)
            if cut.done():
                break
        async with server.client(READER) as client:
            served = await client.get("/v1/who")

    assert 0.5 < cut.result() < 2
    assert served.status_code == 200


async def test_missing_later_head_times_out() -> None:
    async with (
        serve_guarded(request_within_s=0.4) as server,
        connected(server) as (a, b),
    ):
        b.write(WHO)
        first = await a.readuntil(b"}")
        await asyncio.sleep(0.6)  # idle, which is allowed
        b.write(WHO)
        second = await a.readuntil(b"}")
        b.write(WHO[:20])
        took = await gone(a)

    assert status_of(first) == status_of(second) == 200
    assert 0.3 < took < 1.5


async def test_rest_of_a_refused_body_is_not_awaited() -> None:
    post = f"POST /v1/body HTTP/1.1\r\n{HEAD}Content-Length: 9999999\r\n\r\n"
    async with (
        serve_guarded(request_within_s=0.4) as server,
        connected(server) as (a, b),
    ):
        b.write(post.encode() + b"begun")
        refused = await a.readuntil(b"}")
        took = await gone(a)

    assert status_of(refused) == 413
    assert took < 1.5


async def test_endless_refused_body_is_not_read() -> None:
    post = f"POST /v1/body HTTP/1.1\r\n{HEAD}Content-Length: {10**12}\r\n\r\n"
    sent = 0
    async with (
        serve_guarded(request_within_s=20) as server,
        connected(server) as (a, b),
    ):
        b.write(post.encode())
        refused = await a.readuntil(b"}")
        with contextlib.suppress(ConnectionError):
            while sent < 200_000_000:
                b.write(b"x" * 1_000_000)
                await b.drain()
                sent += 1_000_000

    assert status_of(refused) == 413
    assert sent < 50_000_000


async def test_bytes_after_a_refusal_are_not_parsed() -> None:
    post = "POST /v1/body HTTP/1.1\r\nHost: evil\r\nContent-Length: 4\r\n\r\n"
    async with serve_guarded() as server, connected(server) as (a, b):
        b.write(post.encode() + b"ab")
        refused = await a.readuntil(b"}")
        b.write(b"cd" + WHO)
        rest = await a.read()

    assert status_of(refused) == 421
    assert b"connection: close" in refused
    assert rest == b""


async def test_refused_body_in_tiny_chunks_is_cheap() -> None:
    """h11 would parse 8 MiB of them for minutes, and others would wait for it."""
    chunked = b"POST /v1/body HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked"
    async with serve_guarded() as server:
        used = time.process_time()
        answer = await server.raw(chunked + b"\r\n\r\n", b"1\r\na\r\n" * 1_000_000)
        used = time.process_time() - used

    assert status_of(answer) in {401, 413}
    assert b"connection: close" in answer
    assert used < 2


async def test_accepted_body_arrives_in_few_chunks() -> None:
    chunked = f"POST /v1/body HTTP/1.1\r\n{HEAD}Transfer-Encoding: chunked\r\n\r\n"
    async with serve_guarded() as server:
        fits = await server.raw(
            chunked.replace(HEAD, f"{HEAD}Connection: close\r\n").encode(),
            b"1\r\na\r\n" * 1000 + b"0\r\n\r\n",
        )
        refused = await server.raw(chunked.encode(), b"1\r\na\r\n" * 60_000)

    assert b'{"bytes":1000}' in fits
    assert status_of(refused) == 413
    assert b"chunks" in refused


# Readers that do not read


async def test_stuck_reader_is_disconnected() -> None:
    ended = asyncio.Event()

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        leaving = asyncio.ensure_future(_left(receive))
        while not leaving.done():
            await send(
                {"type": "http.response.body", "body": b"." * 9999, "more_body": True}
            )
            await asyncio.sleep(0)
        ended.set()

    opened = serve_guarded(app=endless, send_within_s=0.5)
    async with opened as server, connected(server, taking=4096) as (_, b):
        b.write(WHO)
        began = now()
        await asyncio.wait_for(ended.wait(), 10)

    assert 0.4 < now() - began < 5


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def test_slow_reader_is_not_disconnected() -> None:
    size = 3_000_000

    async def large(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"." * size})

    received = 0
    opened = serve_guarded(app=large, send_within_s=0.3)
    async with opened as server, connected(server, taking=65536) as (a, b):
        b.write(LAST_WHO)
        while piece := await a.read(100_000):
            received += len(piece)
            await asyncio.sleep(0.02)

    assert received > size


async def test_application_can_close_its_connection() -> None:
    async with serve_guarded() as server, connected(server) as (a, b):
        b.write(f"POST /v1/cut HTTP/1.1\r\n{HEAD}\r\n".encode())
        left = await a.read()

    assert left == b""


# What is no HTTP


@pytest.mark.parametrize(
    "nonsense",
    [
        *(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\r\n\r\n", b"\0" * 100),
        *(
            b"GET\r\n\r\n",
            b"GET / HTTP/1.1\r\n bad\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM",
        ),
        b"GET / HTTP/1.1\r\nHost: a\r\nHost : b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    ],
)
async def test_invalid_http_gets_a_response_and_is_closed(nonsense: bytes) -> None:
    async with serve_guarded(request_within_s=1) as server:
        answer = await server.raw(nonsense)

    assert answer == b"" or status_of(answer) in {400, 421, 501}


@pytest.mark.parametrize(
    "head",
    [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
        "Content-Length : 5\r\n",
        "Content-Length: 5\n",
        "X: 1\rContent-Length: 5\r\n",
        "X: 1\r\n Content-Length: 5\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
    ],
)
async def test_ambiguous_request_ends_the_connection(head: str) -> None:
    post = f"POST /v1/body HTTP/1.1\r\n{HEAD}{head}\r\n".encode()
    async with serve_guarded() as server:
        answer = await server.raw(post, b"0\r\n\r\n" + WHO)

    assert status_of(answer) == 400
    assert b"application/problem+json" in answer
    assert b"connection: close" in answer
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    "body", [b"1\r\na\r\n0\r\nX: y\r\n\r\n", b"1\na\n0\n\n", b"-1\r\na\r\n"]
)
async def test_ambiguous_body_ends_the_connection(body: bytes) -> None:
    chunked = f"POST /v1/body HTTP/1.1\r\n{HEAD}Transfer-Encoding: chunked\r\n\r\n"
    async with serve_guarded(request_within_s=1) as server:
        answer = await server.raw(chunked.encode() + body + WHO)

    assert status_of(answer) == 400
    assert answer.count(b"HTTP/1.1 ") == 1


async def test_head_has_a_limited_number_of_lines() -> None:
    many = "".join(f"X{number}: a\r\n" for number in range(130))
    few = "".join(f"X{number}: a\r\n" for number in range(100))
    async with serve_guarded() as server:
        refused = await server.raw(LAST_WHO[:-2] + many.encode() + b"\r\n")
        fits = await server.raw(LAST_WHO[:-2] + few.encode() + b"\r\n")

    assert (status_of(refused), status_of(fits)) == (413, 200)


async def test_malformed_chunk_ends_only_its_request() -> None:
    chunked = f"POST /v1/body HTTP/1.1\r\n{HEAD}Transfer-Encoding: chunked\r\n\r\n"
    async with serve_guarded() as server:
        answer = await server.raw(chunked.encode(), b"2\r\nab\r\n", 0.05, b"zz\r\n")
        async with server.client(READER) as client:
            served = await client.get("/v1/who")

    assert status_of(answer) == 400
    assert answer.count(b"HTTP/1.1 ") == 1
    assert served.status_code == 200


async def test_websocket_upgrade_is_ignored() -> None:
    upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n"
    async with serve_guarded() as server, connected(server) as (a, b):
        b.write(f"GET /v1/who HTTP/1.1\r\n{HEAD}{upgrade}\r\n".encode())
        answer = await a.readuntil(b"}")

    assert status_of(answer) == 200


async def test_pipelined_requests_do_not_share_context() -> None:
    mark: ContextVar[str] = ContextVar("mark", default="none")
    seen = []

    async def marking(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(mark.get())
        mark.set(scope["path"])
        await receive()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async with serve_guarded(app=marking) as server:
        await server.raw(WHO + WHO + WHO + LAST_WHO)

    assert seen == ["none"] * 4


# Too many


@asynccontextmanager
async def serving(most: int) -> AsyncIterator[GuardedServer]:
    """Serve so many connections at a time."""
    settings = ServiceSettings(port=0, tokens=TOKENS, stop_within_s=0.1)
    server = Server(Guard(application(), settings), settings, most_connections=most)
    with listening(settings) as open_socket:
        port = open_socket.getsockname()[1]
        running = asyncio.ensure_future(server.serve(sockets=[open_socket]))
        await server.ready.wait()
        yield GuardedServer(
            address_of(open_socket), port, Guard(_none, settings).authenticator
        )
        server.stop()
        await running


async def test_too_many_connections_get_503_or_are_aborted() -> None:
    long = WHO.replace(b"/v1/who", b"/v1/long")
    async with serving(3) as server:
        async with contextlib.AsyncExitStack() as opened:
            for _ in range(3):
                _, writer = await opened.enter_async_context(connected(server))
                writer.write(long)
            await asyncio.sleep(0.05)
            too_many = await server.raw(LAST_WHO)
        await asyncio.sleep(0.05)
        again = await server.raw(LAST_WHO)
        async with contextlib.AsyncExitStack() as opened:
            for _ in range(3):
                _, writer = await opened.enter_async_context(connected(server))
                writer.write(long)
            await asyncio.sleep(0.05)
            async with contextlib.AsyncExitStack() as more:
                for _ in range(101):
                    await more.enter_async_context(connected(server))
                far_too_many = [await server.raw(LAST_WHO) for _ in range(2)]

    assert status_of(too_many) == 503
    assert b"retry-after: 1" in too_many
    assert b"content-security-policy" in too_many
    assert status_of(again) == 200
    assert {status_of(one) for one in far_too_many if one} <= {503}


async def test_longest_idle_connection_is_closed_first() -> None:
    async with serving(3) as server, contextlib.AsyncExitStack() as opened:
        idle = []
        for _ in range(3):
            reader, writer = await opened.enter_async_context(connected(server))
            writer.write(WHO)
            await reader.readuntil(b"}")
            idle.append((reader, writer))
        first, used = idle[0], idle[1]
        first[1].write(WHO)
        await first[0].readuntil(b"}")
        served = await server.raw(LAST_WHO)
        cut = await used[0].read()
        first[1].write(WHO)
        kept = await first[0].readuntil(b"}")

    assert status_of(served) == 200
    assert cut == b""
    assert status_of(kept) == 200


async def test_silent_connections_do_not_block_new_ones() -> None:
    async with serving(10) as server, contextlib.AsyncExitStack() as opened:
        for _ in range(300):
            await opened.enter_async_context(connected(server))
        served = await server.raw(LAST_WHO)

    assert status_of(served) == 200


async def _none(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError


# The end


async def test_stop_finishes_requests_and_accepts_no_more() -> None:
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(serve_guarded(stop_within_s=5))
        async with connected(server) as (idle, writer), server.client(READER) as client:
            writer.write(WHO)
            await idle.readuntil(b"}")
            under_way = asyncio.ensure_future(client.get("/v1/soon"))
            await asyncio.sleep(0.1)
            began = now()
            stopping = asyncio.ensure_future(stack.aclose())
            await gone(idle)
            was_open = not under_way.done()  # idle connections do not wait for it
            with pytest.raises(httpx.ConnectError):
                await server.client(READER).get("/v1/who")
            answer = await under_way
            await stopping
            took = now() - began

    assert answer.text == "soon"
    assert was_open
    assert took < 1


async def test_stop_aborts_hanging_requests() -> None:
    before = asyncio.all_tasks()
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(serve_guarded(stop_within_s=0.4))
        async with connected(server) as (a, b), connected(server) as (half, begun):
            b.write(f"GET /v1/long HTTP/1.1\r\n{HEAD}\r\n".encode())
            begun.write(b"GET /v1/wh")
            await asyncio.sleep(0.1)
            began = now()
            await stack.aclose()
            took = now() - began
            left = await asyncio.gather(gone(a), gone(half))

    assert 0.3 < took < 2
    assert max(left) < 0.5
    assert asyncio.all_tasks() == before


async def test_second_cancellation_does_not_cut_the_stop_short() -> None:
    before, serving = asyncio.all_tasks(), asyncio.Event()
    servers: list[GuardedServer] = []

    async def hold() -> None:
        async with serve_guarded(stop_within_s=0.3) as server:
            servers.append(server)
            serving.set()
            await asyncio.Event().wait()

    holding = asyncio.create_task(hold())
    await serving.wait()
    async with connected(servers[0]) as (_, writer):
        writer.write(f"GET /v1/long HTTP/1.1\r\n{HEAD}\r\n".encode())
        await asyncio.sleep(0.1)
        for _ in range(2):
            holding.cancel()
            await asyncio.sleep(0.05)
        with pytest.raises(asyncio.CancelledError):
            await holding

    assert asyncio.all_tasks() == before


async def test_stream_notices_the_stop() -> None:
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(serve_guarded(stop_within_s=5))
        async with connected(server) as (a, b):
            b.write(f"GET /v1/stream HTTP/1.1\r\n{HEAD}\r\n".encode())
            await a.read(100)
            reading = asyncio.ensure_future(a.read())
            began = now()
            await stack.aclose()
            took = now() - began
            rest = await reading

    assert took < 2
    assert rest.endswith(b"0\r\n\r\n")  # the end of the chunks: it was not cut


async def test_stop_does_not_wait_for_a_stuck_reader() -> None:
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(serve_guarded(stop_within_s=0.4))
        async with connected(server, taking=4096) as (_, b):
            b.write(f"GET /v1/stream HTTP/1.1\r\n{HEAD}\r\n".encode())
            await asyncio.sleep(0.2)
            began = now()
            await stack.aclose()
            took = now() - began

    assert took < 2


async def test_disconnected_clients_leave_nothing_behind() -> None:
    async with serve_guarded() as server:
        before = len(asyncio.all_tasks())
        for _ in range(20):
            vanishing = socket.create_connection(("127.0.0.1", server.port))
            vanishing.sendall(f"GET /v1/long HTTP/1.1\r\n{HEAD}\r\n".encode()[:-1])
            reset = struct.pack("ii", 1, 0)
            vanishing.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            vanishing.close()
        await asyncio.sleep(0.2)
        after = len(asyncio.all_tasks())
        async with server.client(READER) as client:
            served = await client.get("/v1/who")

    assert after == before
    assert served.status_code == 200


async def test_error_in_the_block_stops_the_server() -> None:
    with pytest.raises(KeyError):
        async with serve_guarded() as server:
            raise KeyError
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", server.port)


# Where it listens


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "0", "192.0.2.1", "::ffff:127.0.0.1"]
)
def test_server_without_tokens_listens_only_on_loopback(host: str) -> None:
    with pytest.raises(InvalidServiceError) as caught:
        listening(ServiceSettings(host=host, port=0))

    assert "without a token" in caught.value.state
    assert "herdbook token" in caught.value.remedy


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2", "127.1"])
def test_loopback_interface_requires_no_tokens(host: str) -> None:
    with listening(ServiceSettings(host=host, port=0)) as made:
        assert made.getsockname()[0].startswith("127.")
        assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


def test_server_with_tokens_listens_everywhere_and_reports_its_address() -> None:
    with listening(ServiceSettings(host="0.0.0.0", port=0, tokens=TOKENS)) as made:
        assert address_of(made) == f"http://127.0.0.1:{made.getsockname()[1]}"


@pytest.mark.parametrize("host", ["", "no.such.host.invalid", "a b", "x" * 300, "\0"])
def test_invalid_host_is_reported(host: str) -> None:
    with pytest.raises(InvalidServiceError) as caught:
        listening(ServiceSettings(host=host, port=0))

    assert "cannot be resolved" in caught.value.state


def test_port_in_use_is_reported_and_a_released_one_works() -> None:
    with listening(ServiceSettings(port=0)) as made:
        port = made.getsockname()[1]
        with pytest.raises(InvalidServiceError, match=f"port {port} on 127.0.0.1"):
            listening(ServiceSettings(port=port))
        with socket.create_connection(("127.0.0.1", port)), made.accept()[0]:
            pass
    listening(ServiceSettings(port=port)).close()


async def test_application_that_fails_to_start_is_reported() -> None:
    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no"})

    with pytest.raises(InvalidServiceError, match="failed to start"):
        async with serve(failing, ServiceSettings(port=0)):
            raise AssertionError


async def test_answers_are_sent_immediately() -> None:
    """Without TCP_NODELAY each would wait some 40 ms."""
    async with serve_guarded() as server, server.client(READER) as client:
        await client.get("/v1/who")
        began = now()
        for _ in range(20):
            await client.get("/v1/who")
        took = now() - began

    assert took / 20 < 0.03


async def test_server_that_ends_by_itself_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without that, the program would go on and serve nothing."""

    class Breaks(Server):
        async def on_tick(self, counter: int) -> bool:
            if counter or self.ready.is_set():
                raise ZeroDivisionError
            return False

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive, send

    monkeypatch.setattr("herdbook.service.server.Server", Breaks)
    ended = asyncio.Event()
    with pytest.raises(ZeroDivisionError):
        async with (
            serve(app, ServiceSettings(port=0), ended=ended.set),
            asyncio.timeout(10),
        ):
            await ended.wait()
