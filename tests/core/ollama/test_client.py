"""The client against servers that answer, refuse, hang, send nonsense and die."""

from __future__ import annotations

import asyncio
import inspect
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from typing import TypeAlias

import httpx
import msgspec
import pytest

from herdbook.core.clock import ManualClock, settle
from herdbook.core.errors import (
    BadAnswerError,
    CapabilityMissingError,
    HerdbookError,
    InvalidAddressError,
    ModelNotFoundError,
    NodeTimeoutError,
    NodeUnreachableError,
    PullCutError,
    RefusedError,
)
from herdbook.core.ollama.client import OllamaClient
from herdbook.core.ollama.connections import translate
from herdbook.core.ollama.requests import ClientLimits

URL = "http://ollama.test:11434"
ASKING = b'{"status":"pulling manifest"}\n'
SUCCESS = b'{"status":"success"}\n'

Serve: TypeAlias = Callable[[StreamReader, StreamWriter], Awaitable[None]]


class Server:
    """A function as a server, and what it was asked."""

    def __init__(self, answer: Callable[[httpx.Request], httpx.Response]) -> None:
        self.asked: list[httpx.Request] = []
        self._answer = answer

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        return self._answer(request)

    def client(
        self, *, url: str = URL, limits: ClientLimits | None = None
    ) -> OllamaClient:
        return OllamaClient(url, limits=limits, transport=httpx.MockTransport(self))

    @property
    def bodies(self) -> list[object]:
        return [msgspec.json.decode(request.content) for request in self.asked]


def saying(json: object, status: int = 200) -> Server:
    return Server(lambda _: httpx.Response(status, json=json))


def streaming(*chunks: bytes) -> Server:
    async def stream() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    return Server(lambda _: httpx.Response(200, content=stream()))


async def pulled(client: OllamaClient) -> list[str]:
    async with client, aclosing(client.pull("m")) as lines:
        return [line.status async for line in lines]


@asynccontextmanager
async def listening(serve: Serve) -> AsyncIterator[str]:
    """Serve each connection by a function, yield the URL, and leave nothing open."""
    under_way: set[asyncio.Task[None]] = set()

    async def connected(reader: StreamReader, writer: StreamWriter) -> None:
        if task := asyncio.current_task():
            under_way.add(task)
        try:
            await serve(reader, writer)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}"
        if under_way:
            await asyncio.wait(under_way)


async def test_path_prefix_of_the_address_is_kept() -> None:
    server = saying({"version": "0.9.6"})

    async with server.client(url=f"{URL}/ollama") as client:
        assert await client.version() == "0.9.6"

    assert server.asked[0].url == f"{URL}/ollama/api/version"


async def test_requests_send_no_origin_and_no_compression() -> None:
    server = saying({"models": []})

    async with server.client() as client:
        await client.ps()

    headers = server.asked[0].headers
    assert "origin" not in headers
    assert headers["accept-encoding"] == "identity"
    assert headers["user-agent"] == "herdbook"


async def test_proxy_from_the_environment_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")

    async def serve(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{"version":"1"}')
        await writer.drain()

    async with listening(serve) as url, OllamaClient(url) as client:
        assert await client.version() == "1"


async def test_load_sends_only_what_was_requested() -> None:
    server = saying({"model": "m", "done": True, "done_reason": "load"})

    async with server.client() as client:
        await client.load("m")
        await client.load("m", options={"num_ctx": 4096}, keep_alive=-1)

    assert [request.url.path for request in server.asked] == ["/api/generate"] * 2
    assert server.bodies == [
        {"model": "m"},
        {"model": "m", "options": {"num_ctx": 4096}, "keep_alive": -1},
    ]


async def test_embedding_model_is_loaded_with_an_empty_embedding() -> None:
    server = saying({"model": "m", "embeddings": []})

    async with server.client() as client:
        await client.load("m", keep_alive="5m", embedding=True)

    assert server.asked[0].url.path == "/api/embed"
    assert server.bodies == [{"model": "m", "keep_alive": "5m"}]


async def test_a_model_that_cannot_generate_says_so() -> None:
    server = saying({"error": '"m" does not support generate'}, 400)

    async with server.client() as client:
        with pytest.raises(CapabilityMissingError) as raised:
            await client.load("m")

    assert raised.value.capability == "generate"


async def test_an_unload_is_a_generate_for_all_kinds() -> None:
    server = saying({"model": "m", "done": True, "done_reason": "unload"})

    async with server.client() as client:
        await client.unload("m")

    assert server.asked[0].url.path == "/api/generate"
    assert server.bodies == [{"model": "m", "keep_alive": 0}]


async def test_changes_send_what_the_api_accepts() -> None:
    server = Server(lambda _: httpx.Response(200))

    async with server.client() as client:
        await client.delete("m")
        await client.copy("m", "n")
        await client.create("n", source="m", parameters={"num_ctx": 8})
        await client.create("n", source="m")

    assert [(request.method, request.url.path) for request in server.asked] == [
        ("DELETE", "/api/delete"),
        ("POST", "/api/copy"),
        ("POST", "/api/create"),
        ("POST", "/api/create"),
    ]
    assert server.bodies == [
        {"model": "m"},
        {"source": "m", "destination": "n"},
        {"model": "n", "from": "m", "stream": False, "parameters": {"num_ctx": 8}},
        {"model": "n", "from": "m", "stream": False},
    ]


async def test_refresh_requests_all_three_endpoints() -> None:
    entry = {"name": "x:1", "digest": "d" * 64}
    server = saying({"version": "1", "models": [entry]})

    async with server.client() as client:
        look = await client.poll(within_s=5)

    assert look.version == "1"
    assert [entry.name for entry in look.models] == ["x:1"]
    assert [entry.name for entry in look.runners or ()] == ["x:1"]


async def test_refresh_fails_if_one_of_its_parts_fails() -> None:
    async with saying({}, 403).client() as client:
        with pytest.raises(RefusedError):
            await client.poll(within_s=5)


async def test_refresh_has_its_own_deadline() -> None:
    clock = ManualClock()

    async with listening(silent) as url, OllamaClient(url, clock=clock) as client:
        look = asyncio.create_task(client.poll(within_s=2))
        await settle()
        await clock.advance(2)
        with pytest.raises(NodeTimeoutError) as raised:
            await look

    assert raised.value.seconds == 2


async def test_answers_after_a_late_list_still_count() -> None:
    clock, listed, answered = ManualClock(), asyncio.Event(), asyncio.Event()
    answers: dict[str, object] = {
        "/api/tags": {"models": []},
        "/api/ps": {"models": []},
    }

    async def serve(request: httpx.Request) -> httpx.Response:
        path = request.url.path
        await (listed if path == "/api/tags" else answered).wait()
        return httpx.Response(200, json=answers.get(path, {"version": "1.2.3"}))

    transport = httpx.MockTransport(serve)
    async with OllamaClient(URL, clock=clock, transport=transport) as client:
        poll = asyncio.create_task(client.poll(within_s=2))
        await settle()
        await clock.advance(1.8)
        listed.set()
        await settle()
        await clock.advance(0.05)
        answered.set()
        found = await poll

    assert (found.version, found.runners) == ("1.2.3", [])


async def silent(reader: StreamReader, writer: StreamWriter) -> None:
    """Take the question and say nothing until the other side leaves."""
    await reader.read()


async def test_missing_answer_is_a_timeout() -> None:
    clock = ManualClock()

    async with listening(silent) as url, OllamaClient(url, clock=clock) as client:
        asked = asyncio.create_task(client.tags())
        await settle()
        await clock.advance(30)
        with pytest.raises(NodeTimeoutError):
            await asked


async def test_load_has_no_deadline_and_cancelling_closes_it() -> None:
    clock, left = ManualClock(), asyncio.Event()

    async def serve(reader: StreamReader, writer: StreamWriter) -> None:
        await silent(reader, writer)
        left.set()

    async with listening(serve) as url, OllamaClient(url, clock=clock) as client:
        load = asyncio.create_task(client.load("m"))
        await settle()
        await clock.advance(100_000)
        assert not load.done()
        load.cancel()
        await asyncio.wait([load])
        await asyncio.wait_for(left.wait(), 5)

    assert load.cancelled()


async def test_closing_a_pull_closes_its_connection() -> None:
    left = asyncio.Event()

    async def serve(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + ASKING)
        await silent(reader, writer)
        left.set()

    async with listening(serve) as url, OllamaClient(url) as client:
        async with aclosing(client.pull("m")) as lines:
            assert (await anext(lines)).status == "pulling manifest"
        await asyncio.wait_for(left.wait(), 5)


async def test_closing_the_client_ends_a_pull() -> None:
    async def serve(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + ASKING)
        await silent(reader, writer)

    async with listening(serve) as url:
        client = OllamaClient(url)
        async with aclosing(client.pull("m")) as lines:
            await anext(lines)
            await client.close()
            with pytest.raises(PullCutError):
                await anext(lines)


async def test_cancelled_requests_never_use_up_the_connections() -> None:
    # httpcore keeps a connection for good if the request is cancelled in certain turns.
    limits = ClientLimits(connections=2, connect_s=1.0)
    pulling = asyncio.Event()

    async def serve(reader: StreamReader, writer: StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            if b"/api/pull" in head:
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + ASKING)
                await pulling.wait()
                writer.write(SUCCESS)
            else:
                closing = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
                writer.write(closing + b'{"version":"1"}')

    async with listening(serve) as url, OllamaClient(url, limits=limits) as client:
        async with aclosing(client.pull("m")) as lines:
            assert (await anext(lines)).status == "pulling manifest"
            for turns in range(40):
                asked = asyncio.create_task(client.version())
                for _ in range(turns):
                    await asyncio.sleep(0)
                asked.cancel()
                await asyncio.wait([asked])
                assert await client.version() == "1"
            pulling.set()
            assert (await anext(lines)).status == "success"


async def test_a_request_waits_for_a_connection_that_is_in_use() -> None:
    # Also the limit for the connection of the pull, which a busy machine delays.
    limits = ClientLimits(connections=1, connect_s=0.5)

    async def serve(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + ASKING)
        await silent(reader, writer)

    async with listening(serve) as url, OllamaClient(url, limits=limits) as client:
        async with aclosing(client.pull("m")) as lines:
            await anext(lines)
            with pytest.raises(NodeTimeoutError):
                await client.version()


async def test_a_pull_ends_with_success() -> None:
    server = streaming(ASKING[:10], ASKING[10:] + b"\n" + SUCCESS + b"{nonsense\n")

    assert await pulled(server.client()) == ["pulling manifest", "success"]
    assert server.bodies == [{"model": "m", "insecure": False, "stream": True}]


async def test_a_pull_ends_with_success_without_a_newline() -> None:
    server = streaming(ASKING, SUCCESS.strip())

    assert await pulled(server.client()) == ["pulling manifest", "success"]


@pytest.mark.parametrize("rest", [b"", SUCCESS[:10]])
async def test_pull_without_a_success_line_is_cut(rest: bytes) -> None:
    with pytest.raises(PullCutError):
        await pulled(streaming(ASKING, rest).client())


async def test_server_that_dies_during_a_pull_cuts_it_off() -> None:
    async def serve(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        writer.write(head + b"%x\r\n%s\r\n" % (len(ASKING), ASKING))
        await writer.drain()

    async with listening(serve) as url:
        with pytest.raises(PullCutError) as raised:
            await pulled(OllamaClient(url))

    assert "closed connection" in raised.value.raw


async def test_pull_that_cannot_start_is_unreachable_and_not_cut() -> None:
    with pytest.raises(NodeUnreachableError):
        await pulled(OllamaClient(closed_url()))


@pytest.mark.parametrize(
    "line",
    [b"nonsense\n", b"[]\n", b'{"status":"\xff"}\n', b"x" * 300],
)
async def test_an_invalid_line_is_a_bad_answer(line: bytes) -> None:
    server = streaming(ASKING, line)

    with pytest.raises(BadAnswerError):
        await pulled(server.client(limits=ClientLimits(line_bytes=200)))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"{}",
        b"null",
        b'{"models": [',
        b'{"models": "\xff"}',
        b"[" * 100_000,
    ],
    ids=lambda body: body[:20],
)
async def test_invalid_body_from_ollama_is_a_bad_answer(body: bytes) -> None:
    server = streaming(body)

    async with server.client() as client:
        with pytest.raises(BadAnswerError):
            await client.tags()


async def test_a_body_that_never_ends_is_a_bad_answer() -> None:
    server = streaming(b'{"models": []}', *[b" " * 50] * 5)

    async with server.client(limits=ClientLimits(answer_bytes=200)) as client:
        with pytest.raises(BadAnswerError, match="over 200 bytes"):
            await client.tags()


@pytest.mark.parametrize("status", [304, 404, 405, 500, 502, 504])
async def test_answer_of_a_proxy_is_a_bad_answer(status: int) -> None:
    server = Server(
        lambda _: httpx.Response(
            status, text="<html>no", headers={"location": "http://elsewhere/"}
        )
    )

    async with server.client() as client:
        with pytest.raises(BadAnswerError, match=f"HTTP {status}"):
            await client.tags()

    assert len(server.asked) == 1


async def test_missing_model_is_reported_by_name() -> None:
    async with saying({"error": "model 'm' not found"}, 404).client() as client:
        with pytest.raises(ModelNotFoundError) as raised:
            await client.show("m")

    assert raised.value.name == "m"


def closed_url() -> str:
    """Return where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


async def test_refused_connection_is_reported_in_the_words_of_the_system() -> None:
    url = closed_url()

    async with OllamaClient(url) as client:
        with pytest.raises(NodeUnreachableError) as raised:
            await client.version()

    assert str(raised.value).startswith(
        f"Ollama at {url} cannot be reached: Connection refused."
    )


async def test_unknown_host_is_reported_in_the_words_of_the_resolver() -> None:
    async with OllamaClient("http://nobody.invalid:1") as client:
        with pytest.raises(NodeUnreachableError) as raised:
            await client.version()

    assert "Errno" not in raised.value.raw


async def test_server_without_tls_is_distinguished_from_no_server() -> None:
    async def serve(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with (
        listening(serve) as url,
        OllamaClient(url.replace("http:", "https:")) as client,
    ):
        with pytest.raises(NodeUnreachableError) as raised:
            await client.version()

    assert "SSL" in raised.value.raw


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n1"]
)
async def test_server_that_closes_the_connection_early_is_unreachable(
    answer: bytes,
) -> None:
    async def serve(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    async with listening(serve) as url, OllamaClient(url) as client:
        with pytest.raises(NodeUnreachableError):
            await client.version()


async def test_answer_that_is_not_http_is_a_bad_answer() -> None:
    async def serve(reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(b"220 mail.example.com ESMTP\r\n\r\n")
        await writer.drain()

    async with listening(serve) as url, OllamaClient(url) as client:
        with pytest.raises(BadAnswerError):
            await client.version()


@pytest.mark.parametrize("url", ["http://[::1", "http://x:port"])
def test_an_invalid_address_is_refused_at_once(url: str) -> None:
    with pytest.raises(InvalidAddressError):
        OllamaClient(url)


def foreign() -> list[type[Exception]]:
    """Return every exception that httpx exports."""
    exported = [getattr(httpx, name) for name in httpx.__all__]
    return [
        member
        for member in exported
        if inspect.isclass(member) and issubclass(member, Exception)
    ]


def made(kind: type[Exception]) -> Exception:
    """Make one of them, whatever it wants."""
    request = httpx.Request("GET", URL)
    response = httpx.Response(200, request=request)
    if kind is httpx.HTTPStatusError:
        return httpx.HTTPStatusError("x", request=request, response=response)
    wants = inspect.signature(kind).parameters
    return kind("x") if "message" in wants else kind()


@pytest.mark.parametrize("kind", foreign())
async def test_every_httpx_exception_becomes_a_herdbook_error(
    kind: type[Exception],
) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        raise made(kind)

    async with Server(answer).client() as client:
        for ask in (client.version(), pulled(client)):
            with pytest.raises(HerdbookError) as raised:
                await ask
            assert isinstance(raised.value.__cause__, kind | HerdbookError)


def test_all_exceptions_of_httpx_are_known() -> None:
    assert len(foreign()) >= 24


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx.ConnectTimeout("x"), NodeTimeoutError),
        (httpx.PoolTimeout("x"), NodeTimeoutError),
        (httpx.UnsupportedProtocol("x"), InvalidAddressError),
        (httpx.TooManyRedirects("x"), BadAnswerError),
        (httpx.DecodingError("x"), BadAnswerError),
        (httpx.RemoteProtocolError("illegal status line"), BadAnswerError),
        (httpx.RemoteProtocolError("Server disconnected"), NodeUnreachableError),
        (httpx.ReadError(""), NodeUnreachableError),
        (httpx.StreamClosed(), NodeUnreachableError),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_each_httpx_exception_maps_to_its_meaning(
    error: Exception, kind: type[HerdbookError]
) -> None:
    assert isinstance(translate(error, URL, ClientLimits()), kind)


@pytest.mark.parametrize(
    "error",
    [httpx.RemoteProtocolError("Server disconnected"), httpx.ReadError("reset")],
)
def test_server_that_breaks_the_connection_may_be_another_program(
    error: Exception,
) -> None:
    message = str(translate(error, URL, ClientLimits()))

    assert "another program" in message
    assert "needs https://" in message


async def test_error_in_place_of_an_answer_is_shown() -> None:
    async with saying({"error": "closed until 18:00"}).client() as client:
        with pytest.raises(BadAnswerError, match="closed until 18:00"):
            await client.tags()


def test_message_of_httpx_ends_with_one_full_stop() -> None:
    error = httpx.RemoteProtocolError("Server disconnected without a response.")

    assert ".." not in str(translate(error, URL, ClientLimits()))
