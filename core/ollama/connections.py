"""The connections to one Ollama server, and Herdbook's errors for those of httpx."""

from __future__ import annotations

import os
import re
import socket
import ssl
from base64 import b64decode
from collections.abc import AsyncIterator, Iterator
from contextlib import (
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from typing import Final

import httpx
import msgspec

from herdbook.core.clock import Clock
from herdbook.core.errors import (
    BadAnswerError,
    HerdbookError,
    InvalidAddressError,
    NodeTimeoutError,
    NodeUnreachableError,
)
from herdbook.core.observer import Observer, observed_request
from herdbook.core.ollama.requests import (
    MISSING,
    Answered,
    Call,
    ClientLimits,
    LineReader,
    MissingEndpointError,
    read,
    redirected,
    refusal,
)
from herdbook.events.shared.file_descriptors import (
    RAISE_THE_LIMIT,
    TOO_MANY,
    ResourceExhaustedError,
    is_exhausted,
)

Transport = httpx.AsyncBaseTransport
"""Sends requests; a test can replace the one that uses the network."""

_FOREIGN: Final = (
    httpx.HTTPError,
    httpx.InvalidURL,
    httpx.CookieConflict,
    httpx.StreamError,
)
"""The base classes of all httpx exceptions."""

_SHORTEST_SECRET: Final = 4
"""Bytes; removing shorter ones would garble texts and keep nothing secret."""
_REMOVED: Final = b"[removed]"

_BROKEN_OFF: Final = re.compile("disconnected|closed connection")
_BROKE_OFF_REMEDY: Final = (
    "Check that Ollama is running there ('ollama serve'). If the address is that of "
    "another program, or needs https://, correct it in OLLAMA_HOST (for an added node, "
    "with 'herdbook node move')"
)
_PROBES: Final = {
    "TCP_KEEPIDLE": 30,  # Linux's name
    "TCP_KEEPALIVE": 30,  # and macOS's
    "TCP_KEEPINTVL": 10,
    "TCP_KEEPCNT": 6,
}


class Connections:
    """The connection pool of one server; returns answers or raises Herdbook errors.

    Attributes:
        node: The server, as an error's subject.
    """

    def __init__(
        self,
        base_url: str,
        limits: ClientLimits,
        clock: Clock,
        observer: Observer,
        transport: Transport | None,
    ) -> None:
        self.node = f"Ollama at {base_url}"
        self._base_url = base_url
        self._limits = limits
        self._clock = clock
        self._observer = observer
        self._transport = transport
        self._headers = {"user-agent": "herdbook", "accept-encoding": "identity"}
        self._secrets: tuple[bytes, ...] = ()
        self._in_flight: list[object] = []
        self._replaced: list[httpx.AsyncClient] = []
        with self._translated():
            self._http = self._new_client()

    def _new_client(self) -> httpx.AsyncClient:
        limits = self._limits
        return httpx.AsyncClient(
            base_url=self._base_url,
            transport=self._transport or _transport(self._base_url, limits),
            timeout=httpx.Timeout(
                None, connect=limits.connect_s, pool=limits.connect_s
            ),
            headers=self._headers,
            follow_redirects=False,
            trust_env=False,
        )

    def authorize(self, header: str) -> None:
        """Send an Authorization header with every request."""
        self._headers["authorization"] = self._http.headers["authorization"] = header
        self._secrets = _secrets_in(header)

    async def close(self) -> None:
        """Close all connections."""
        for http in (*self._replaced, self._http):
            await http.aclose()

    async def answer(self, call: Call, kind: type[Answered]) -> Answered:
        """Send a request and return the decoded answer."""
        with self.observed(call):
            return read(await self.whole(call), kind, node=self.node)

    async def ask(self, call: Call) -> None:
        """Send a request whose answer has no content."""
        with self.observed(call):
            await self.whole(call)

    def observed(self, call: Call) -> AbstractContextManager[None]:
        """Return a context manager that reports a request to the observer."""
        return observed_request(self._observer, self._clock, call.method, call.path)

    async def whole(self, call: Call) -> bytes:
        """Return the body of an answer, within the limits of time and size."""
        wait = nullcontext() if call.endless else self._deadline()
        async with wait, self.stream(call) as response:
            return await self._body(response)

    @asynccontextmanager
    async def stream(self, call: Call) -> AsyncIterator[httpx.Response]:
        """Send a request and hold its answer open; raise for any status but 200."""
        with self._translated():
            async with self._response(call) as response:
                if call.optional and response.status_code in MISSING:
                    raise MissingEndpointError
                if response.status_code != httpx.codes.OK:
                    body = await self._refusal(response)
                    target = response.headers.get("location", "")
                    if response.has_redirect_location:
                        raise redirected(self.node, str(response.url), target, call)
                    raise refusal(call, response.status_code, body, node=self.node)
                yield response

    @asynccontextmanager
    async def _response(self, call: Call) -> AsyncIterator[httpx.Response]:
        """Send a request, over new connections if the pool has lost its own."""
        this = object()
        self._in_flight.append(this)
        try:
            response = await self._sent(call, this)
            try:
                yield response
            finally:
                await response.aclose()
        finally:
            self._in_flight.remove(this)

    async def _sent(self, call: Call, this: object) -> httpx.Response:
        content = None if call.body is None else msgspec.json.encode(call.body)
        headers = {"content-type": "application/json"} if content else None
        while True:
            http = self._http
            request = http.build_request(
                call.method, call.path, content=content, headers=headers
            )
            try:
                return await http.send(request, stream=True)
            except httpx.PoolTimeout:
                if not self._has_lost_connections(http, this):
                    raise

    def _has_lost_connections(self, http: httpx.AsyncClient, waiting: object) -> bool:
        """Return whether a request waited for connections that nobody uses.

        If a request is cancelled in the turn in which its connection is opened or
        closed, httpcore 1.0.9 keeps the connection in its pool for good. Once these
        fill the pool, another client with a new pool replaces it. The requests of the
        old one go on; it is closed at the end.

        The pool is first come, first served: of the requests in flight, those that
        began before a waiting one hold a connection each, and the others none.
        """
        if http is not self._http:  # another request was faster
            return True
        holding = self._in_flight.index(waiting)
        if self._transport is not None or holding >= self._limits.connections:
            return False
        self._replaced.append(http)
        self._http = self._new_client()
        return True

    def line_reader(self, call: Call) -> LineReader:
        """Return a reader for the lines of the answer to ``call``."""
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
        """Read the rest of an answer that has started, within the deadline."""
        body, longest = bytearray(), self._limits.answer_bytes
        async with self._deadline():
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > longest:
                    raise BadAnswerError(self.node, raw=f"it is over {longest} bytes")
        return bytes(body)

    async def _refusal(self, response: httpx.Response) -> bytes:
        """Read the start of an error: the rest of a proxy's page adds nothing."""
        body, longest = bytearray(), self._limits.refusal_bytes
        async with self._deadline():
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) >= longest:
                    break
        refusal = bytes(body[:longest])
        for secret in self._secrets:  # a proxy may show the header that it refuses
            refusal = refusal.replace(secret, _REMOVED)
        return refusal

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Translate httpx exceptions raised in the block into Herdbook errors."""
        try:
            yield
        except _FOREIGN as error:
            raise translate(error, self._base_url, self._limits) from error


def _secrets_in(header: str) -> tuple[bytes, ...]:
    """Return what of an Authorization header must not be shown, the longest first."""
    scheme, _, credential = header.partition(" ")
    found = [credential.encode()]
    if scheme == "Basic":
        pair = b64decode(credential)
        found += [pair, pair.partition(b":")[2]]
    return tuple(one for one in found if len(one) >= _SHORTEST_SECRET)


def translate(error: Exception, base_url: str, limits: ClientLimits) -> HerdbookError:
    """Return the Herdbook error for an httpx exception."""
    node, reason = f"Ollama at {base_url}", reason_of(error)
    if is_exhausted(error):
        return ResourceExhaustedError(
            node, f"cannot be reached: {TOO_MANY}", RAISE_THE_LIMIT
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
        case httpx.RemoteProtocolError() | httpx.ReadError() | httpx.WriteError():
            # Something answered the connection, so starting a server may not help.
            return NodeUnreachableError(node, raw=reason, advice=_BROKE_OFF_REMEDY)
        case _:
            return NodeUnreachableError(node, raw=reason)


def reason_of(error: BaseException) -> str:
    """Return why a connection failed, in the words of the system, from the root cause.

    httpx itself only says that it failed, and asyncio adds the address.
    """
    while (below := error.__cause__ or error.__context__) is not None:
        error = below
    if isinstance(error, socket.gaierror | ssl.SSLError):
        return error.strerror or str(error)
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return (str(error) or type(error).__name__).rstrip(".")


def _transport(base_url: str, limits: ClientLimits) -> httpx.AsyncHTTPTransport:
    return httpx.AsyncHTTPTransport(
        # Reading the certificates takes 40 ms; SSL_CERT_FILE can name others.
        verify=base_url.startswith("https:") and httpx.create_ssl_context(),
        limits=httpx.Limits(
            max_connections=limits.connections, max_keepalive_connections=4
        ),
        socket_options=_probing(),
        trust_env=False,
    )


def _probing() -> list[tuple[int, int, int]]:
    """Return TCP keep-alive options that detect a dead peer within 90 s."""
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in _PROBES.items():
        if number := getattr(socket, name, None):
            options.append((socket.IPPROTO_TCP, number, value))
    return options
