"""The client of one Ollama server: the only place that speaks HTTP.

Every failure leaves here as one of our own errors: what httpx raises is translated
at one seam, what the server says in ``failures.py``. Nothing here waits for ever on
a server that is gone: what is answered at once has a deadline, and a load or a pull,
which may take any time, has a connection whose end the operating system notices.
Closing that connection cancels the load or the pull, so it is never reused, retried
or left to a read timeout.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import (
    AbstractContextManager,
    aclosing,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from types import TracebackType
from typing import Final, Self

import httpx
import msgspec

from herdbook.core.clock import Clock, SystemClock
from herdbook.core.concurrency.cancellation import finish
from herdbook.core.errors import (
    BadAnswerError,
    HerdbookError,
    InvalidAddressError,
    NodeTimeoutError,
    NodeUnreachableError,
    PullCutError,
)
from herdbook.core.observer import NO_OBSERVER, Observer, observed_request
from herdbook.core.ollama.entries import (
    MODELS,
    RUNNERS,
    Entry,
    Listing,
    UnreadableEntry,
    read_list,
)
from herdbook.core.ollama.failures import Request
from herdbook.core.ollama.requests import (
    Answered,
    Call,
    ClientLimits,
    LineReader,
    read,
    refusal,
)
from herdbook.core.ollama.wire import (
    EmbedAnswer,
    GenerateAnswer,
    PullLine,
    RunnerEntry,
    ShowAnswer,
    TagEntry,
    VersionAnswer,
)
from herdbook.events.facts import Setting
from herdbook.events.file_descriptors import (
    RAISE_THE_LIMIT,
    TOO_MANY,
    ResourceExhaustedError,
    is_exhausted,
)

__all__ = ["ClientLimits", "OllamaClient", "PullLine", "ServerAnswers"]

SUCCESS: Final = "success"
"""The status of the line that ends a pull; nothing else is success."""

LINES_AT_ONCE: Final = 50
"""Lines of a pull that are handled before other tasks get their turn."""

_FOREIGN: Final = (
    httpx.HTTPError,
    httpx.InvalidURL,
    httpx.CookieConflict,
    httpx.StreamError,
)
"""The roots of all that httpx raises."""

_BROKEN_OFF: Final = re.compile("disconnected|closed connection")
_PROBES: Final = {
    "TCP_KEEPIDLE": 30,  # Linux's name
    "TCP_KEEPALIVE": 30,  # and macOS's
    "TCP_KEEPINTVL": 10,
    "TCP_KEEPCNT": 6,
}


class ServerAnswers(msgspec.Struct, frozen=True, kw_only=True):
    """What a server shows, asked for all at once.

    Attributes:
        version: Its version, as it says; empty where that is no short text.
        models: What it has.
        runners: What it has in memory.
        unreadable: Entries of both lists that cannot be read.
    """

    version: str
    models: list[TagEntry]
    runners: list[RunnerEntry]
    unreadable: tuple[UnreadableEntry, ...] = ()


class OllamaClient:
    """One server, over one small pool of connections; ``async with`` closes it.

    Attributes:
        base_url: The server's URL, without a slash at its end.
    """

    def __init__(
        self,
        base_url: str,
        *,
        limits: ClientLimits | None = None,
        clock: Clock | None = None,
        observer: Observer = NO_OBSERVER,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.base_url = base_url
        self._clock = clock or SystemClock()
        self._connections = _Connections(
            base_url, limits or ClientLimits(), self._clock, observer, transport
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections, which cancels what is under way on them."""
        await finish(self._connections.close())

    async def version(self) -> str:
        """Return the server's version, as it says."""
        return (
            await self._connections.answer(Call("GET", "/api/version"), VersionAnswer)
        ).version

    async def tags(self) -> Listing[TagEntry]:
        """Return the models that the server has, as far as they can be read.

        Raises:
            OllamaError: The server is away, refuses or makes no sense.
        """
        return await self._listing(TagEntry, MODELS)

    async def ps(self) -> Listing[RunnerEntry]:
        """Return the runners in the server's memory, as far as they can be read."""
        return await self._listing(RunnerEntry, RUNNERS)

    async def _listing(self, kind: type[Entry], path: str) -> Listing[Entry]:
        call, node = Call("GET", path), self._connections.node
        with self._connections.observed(call):
            body = await self._connections.whole(call)
            return await read_list(body, kind, source=path, node=node)

    async def look(self, *, within_s: float) -> ServerAnswers:
        """Return version, models and runners, asked for at once.

        Raises:
            NodeTimeoutError: It took longer than ``within_s``.
            OllamaError: The server is away, refuses or makes no sense.
        """
        try:
            async with self._clock.timeout(within_s), asyncio.TaskGroup() as group:
                version = group.create_task(self.version())
                models = group.create_task(self.tags())
                runners = group.create_task(self.ps())
        except TimeoutError:
            raise NodeTimeoutError(self._connections.node, seconds=within_s) from None
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        listed, loaded = models.result(), runners.result()
        return ServerAnswers(
            version=version.result(),
            models=listed.entries,
            runners=loaded.entries,
            unreadable=listed.unreadable + loaded.unreadable,
        )

    async def show(self, name: str) -> ShowAnswer:
        """Return one model in full.

        Raises:
            ModelNotFoundError: The server does not have it.
            ModelDamagedError: Its manifest is torn.
            BadAnswerError: The answer is not one about a model.
        """
        call = Call("POST", "/api/show", {"model": name}, about=name)
        answer = await self._connections.answer(call, ShowAnswer)
        if not bytes(answer.details_raw).startswith(b"{"):
            # Every version of the server shows this object; what lacks it may be
            # another program's answer, and its silence about the weights means nothing.
            raise BadAnswerError(name, raw="its details are not an object")
        return answer

    async def load(
        self,
        name: str,
        *,
        options: Mapping[str, Setting] | None = None,
        keep_alive: str | float | None = None,
        embedding: bool = False,
    ) -> None:
        """Load a model into memory; return when the server says that it is there.

        It takes as long as it takes. Cancelling it closes the connection, which
        aborts the load.

        Args:
            name: The model.
            options: What the runner is to be started with, ``num_ctx`` among it.
            keep_alive: Seconds, or a duration such as ``5m``; negative is for ever,
                None leaves it to the server.
            embedding: Whether the model makes vectors, not text.

        Raises:
            CapabilityMissingError: It makes vectors and ``embedding`` was not set, or
                the reverse; so says the server too where the weights are gone.
            LoadFailedError: The server could not.
            BusyServerError: Its queue is full.
        """
        body: dict[str, object] = {"model": name}
        if options:
            body["options"] = dict(options)
        if keep_alive is not None:
            body["keep_alive"] = keep_alive
        path = "/api/embed" if embedding else "/api/generate"
        call = Call("POST", path, body, name, Request.LOAD, endless=True)
        kind = EmbedAnswer if embedding else GenerateAnswer
        await self._connections.answer(call, kind)

    async def unload(self, name: str) -> None:
        """Ask the server to unload a model, whichever kind it is of.

        Its yes is no proof: it says so too while a request runs (and unloads after
        it), while the model loads (and does nothing), and when it was not loaded.

        Raises:
            ModelNotFoundError: The server does not have it (any more).
        """
        body: dict[str, object] = {"model": name, "keep_alive": 0}
        call = Call("POST", "/api/generate", body, name, Request.CHANGE)
        await self._connections.answer(call, GenerateAnswer)

    async def delete(self, name: str) -> None:
        """Delete a model; what is in memory of it stays there.

        Raises:
            ModelNotFoundError: The server does not have it.
            ModelDamagedError: Its manifest is torn.
        """
        body: dict[str, object] = {"model": name}
        await self._connections.ask(
            Call("DELETE", "/api/delete", body, name, Request.CHANGE)
        )

    async def copy(self, source: str, destination: str) -> None:
        """Give a model a second name, which may have been another model's.

        Raises:
            ModelNotFoundError: The server does not have the source.
        """
        body: dict[str, object] = {"source": source, "destination": destination}
        await self._connections.ask(
            Call("POST", "/api/copy", body, source, Request.CHANGE)
        )

    async def create(
        self, name: str, *, source: str, parameters: Mapping[str, Setting] | None = None
    ) -> None:
        """Make a model of another one's weights, with parameters of its own.

        Raises:
            ServerFailedError: The server could not.
        """
        body: dict[str, object] = {"model": name, "from": source, "stream": False}
        if parameters:
            body["parameters"] = dict(parameters)
        call = Call("POST", "/api/create", body, name, Request.CHANGE, endless=True)
        await self._connections.ask(call)

    async def pull(
        self, name: str, *, insecure: bool = False
    ) -> AsyncGenerator[PullLine, None]:
        """Fetch a model; yield what the server tells, up to ``success``.

        Closing the iterator (``contextlib.aclosing``) closes the connection, which
        cancels the pull; the server keeps what it has. Nothing here bounds the time
        between two lines: see ``PullTracker.stalled``.

        Raises:
            PullError: It ended without success.
            InvalidNameError: The server takes that for no name.
            OllamaError: The server is away, refuses or makes no sense.
        """
        body: dict[str, object] = {"model": name, "insecure": insecure, "stream": True}
        call = Call("POST", "/api/pull", body, name, Request.PULL, endless=True)
        with self._connections.observed(call):
            async with aclosing(self._pull_lines(call)) as lines:
                async for line in lines:
                    yield line

    async def _pull_lines(self, call: Call) -> AsyncGenerator[PullLine, None]:
        reader = self._connections.line_reader(call)
        began, count = False, 0
        try:
            async with self._connections.stream(call) as response:
                began = True
                async for chunk in response.aiter_bytes():
                    for line in reader.feed(chunk):
                        count += 1
                        if count % LINES_AT_ONCE == 0:
                            await asyncio.sleep(0)
                        yield line
                        if line.status == SUCCESS:
                            return
        except NodeUnreachableError as error:
            if not began:
                raise
            raise PullCutError(call.about, raw=error.raw) from error
        raise PullCutError(call.about)


class _Connections:
    """The pool to one server: requests go in, answers or our own errors come out.

    Attributes:
        node: The server, as an error's subject.
    """

    def __init__(
        self,
        base_url: str,
        limits: ClientLimits,
        clock: Clock,
        observer: Observer,
        transport: httpx.AsyncBaseTransport | None,
    ) -> None:
        self.node = f"Ollama at {base_url}"
        self._base_url = base_url
        self._limits = limits
        self._clock = clock
        self._observer = observer
        with self._translated():
            self._http = httpx.AsyncClient(
                base_url=base_url,
                transport=transport or _transport(base_url, limits),
                timeout=httpx.Timeout(
                    None, connect=limits.connect_s, pool=limits.connect_s
                ),
                headers={"user-agent": "herdbook", "accept-encoding": "identity"},
                follow_redirects=False,
                trust_env=False,
            )

    async def close(self) -> None:
        """Close them all."""
        await self._http.aclose()

    async def answer(self, call: Call, kind: type[Answered]) -> Answered:
        """Return a whole answer, read."""
        with self.observed(call):
            return read(await self.whole(call), kind, node=self.node)

    async def ask(self, call: Call) -> None:
        """Take in a whole answer, within its time and length, that says nothing."""
        with self.observed(call):
            await self.whole(call)

    def observed(self, call: Call) -> AbstractContextManager[None]:
        """Return the block in which the whole of a request belongs."""
        return observed_request(self._observer, self._clock, call.method, call.path)

    async def whole(self, call: Call) -> bytes:
        """Return the body of a whole answer, within its time and length."""
        wait = nullcontext() if call.endless else self._deadline()
        async with wait, self.stream(call) as response:
            return await self._body(response)

    @asynccontextmanager
    async def stream(self, call: Call) -> AsyncIterator[httpx.Response]:
        """Send a request and hold its answer open; a refusal is raised here."""
        content = None if call.body is None else msgspec.json.encode(call.body)
        headers = {"content-type": "application/json"} if content else None
        with self._translated():
            async with self._http.stream(
                call.method, call.path, content=content, headers=headers
            ) as response:
                if response.status_code != httpx.codes.OK:
                    body = await self._refusal(response)
                    raise refusal(call, response.status_code, body, node=self.node)
                yield response

    def line_reader(self, call: Call) -> LineReader:
        """Return what reads the lines of the answer to ``call``."""
        return LineReader(call, node=self.node, longest=self._limits.line_bytes)

    @asynccontextmanager
    async def _deadline(self) -> AsyncIterator[None]:
        seconds = self._limits.answer_s
        try:
            async with self._clock.timeout(seconds):
                yield
        except TimeoutError:
            raise NodeTimeoutError(self.node, seconds=seconds) from None

    async def _body(self, response: httpx.Response) -> bytes:
        """Read what follows at once where an answer has begun."""
        body, longest = bytearray(), self._limits.answer_bytes
        async with self._deadline():
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > longest:
                    raise BadAnswerError(self.node, raw=f"it is over {longest} bytes")
        return bytes(body)

    async def _refusal(self, response: httpx.Response) -> bytes:
        """Read the beginning of a refusal: a whole page of a proxy tells no more."""
        body, longest = bytearray(), self._limits.refusal_bytes
        async with self._deadline():
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) >= longest:
                    break
        return bytes(body[:longest])

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """The seam: what httpx raises inside leaves as one of our errors."""
        try:
            yield
        except _FOREIGN as error:
            raise translate(error, self._base_url, self._limits) from error


def translate(error: Exception, base_url: str, limits: ClientLimits) -> HerdbookError:
    """Turn whatever httpx raises into one of our errors."""
    node, reason = f"Ollama at {base_url}", _reason(error)
    if is_exhausted(error):
        return ResourceExhaustedError(
            node, f"cannot be asked: {TOO_MANY}", RAISE_THE_LIMIT
        )
    match error:
        case httpx.TimeoutException():
            return NodeTimeoutError(node, seconds=limits.connect_s)
        case httpx.InvalidURL() | httpx.UnsupportedProtocol():
            return InvalidAddressError(base_url, reason=reason)
        case httpx.RemoteProtocolError() if not _BROKEN_OFF.search(reason):
            return BadAnswerError(node, raw=reason)
        case (
            httpx.DecodingError()
            | httpx.TooManyRedirects()
            | httpx.HTTPStatusError()
            | httpx.CookieConflict()
        ):
            return BadAnswerError(node, raw=reason)
        case _:
            return NodeUnreachableError(node, raw=reason)


def _reason(error: BaseException) -> str:
    """Return what lies at the bottom of it: httpx tells only that it failed."""
    while (below := error.__cause__ or error.__context__) is not None:
        error = below
    if isinstance(error, socket.gaierror | ssl.SSLError):
        return error.strerror or str(error)
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return (str(error) or type(error).__name__).rstrip(".")


def _transport(base_url: str, limits: ClientLimits) -> httpx.AsyncHTTPTransport:
    return httpx.AsyncHTTPTransport(
        # Certificates take 40 ms to read; SSL_CERT_FILE may name others.
        verify=base_url.startswith("https:") and httpx.create_ssl_context(),
        limits=httpx.Limits(
            max_connections=limits.connections, max_keepalive_connections=4
        ),
        socket_options=_probing(),
        trust_env=False,
    )


def _probing() -> list[tuple[int, int, int]]:
    """Have the operating system notice within 90 s that the other side is gone."""
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in _PROBES.items():
        if number := getattr(socket, name, None):
            options.append((socket.IPPROTO_TCP, number, value))
    return options
