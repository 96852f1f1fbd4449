"""Parse the requests of a connection strictly, and hand over one at a time.

The server never sees the bytes of a request's framing: heads and chunks are written
again. So what another parser could read differently (two lengths, a length with chunks,
a bad chunk) is refused here or never arrives, and no request can hide inside another.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol, TypeAlias
from urllib.parse import urlsplit

import httptools

from herdbook.gateway.protocol.answers import Refusal
from herdbook.gateway.protocol.headers import Headers, Request, values_of

_MOST_WAITING: Final = 65_536
"""Bytes of requests that may wait before the client is not read any more."""

_Part: TypeAlias = Request | bytes | Refusal | None
"""A head, a piece of a body, an error, or the end of a request."""


class RequestReceiver(Protocol):
    """Receives the requests of a connection."""

    @property
    def busy(self) -> bool:
        """Whether a request is being answered."""
        ...

    def take_head(self, request: Request) -> None:
        """Receive the head of a request.

        Raises:
            Refusal: The request must not be sent on.
        """

    def take_body(self, data: bytes) -> None:
        """Receive a piece of its body."""

    def take_end(self) -> None:
        """Receive its end.

        Raises:
            Refusal: The request must not be sent on.
        """


class RequestParser:
    """Parses the requests of a connection.

    A client may send requests before the first is answered (pipelining). These wait
    until ``next`` is called.

    Args:
        receiver: Takes the requests.
        head_bytes: Longest request line with its headers, bytes.
        headers: Most header lines of a request.

    Attributes:
        in_head: Whether a part of a head was received, and its end was not.
        target: The target of the newest request, as far as it was received.
        headers: Its headers.
    """

    def __init__(
        self, receiver: RequestReceiver, *, head_bytes: int, headers: int
    ) -> None:
        self.in_head = False
        self._receiver = receiver
        self._most_bytes = head_bytes
        self._most_headers = headers
        self._parser = httptools.HttpRequestParser(self)
        self.target = b""
        self.headers: Headers = []
        self._head_bytes = 0
        self._unparsed = 0
        self._begun = 0
        self._in_message = False
        self._upgrades = False
        self._taken = True
        self._broken = False
        self._waiting: deque[_Part] = deque()
        self._waiting_bytes = 0

    @property
    def method(self) -> str:
        """The method of the newest request."""
        return self._parser.get_method().decode("ascii")

    @property
    def is_full(self) -> bool:
        """Whether the client should not be read until all that waits is handed over."""
        return self._waiting_bytes > _MOST_WAITING

    def feed(self, data: bytes) -> None:
        """Parse the next bytes of the connection.

        Raises:
            Refusal: The request that the receiver takes now is not valid, or must not
                be sent on.
        """
        if self._broken:
            return
        try:
            self._parse(data)
        except Refusal as refusal:
            self._broken = True  # what follows cannot be read
            if not self._waiting and not (self._receiver.busy and self._taken):
                raise
            self._waiting.append(refusal)
        if self._waiting:
            self._waiting_bytes += len(data)

    def next(self) -> None:
        """Hand over the next request, as far as it was received.

        Raises:
            Refusal: It is not valid, or must not be sent on.
        """
        while self._waiting and not self._receiver.busy:
            self._hand_over_one()
        if not self._waiting:
            self._waiting_bytes = 0

    def _hand_over_one(self) -> None:
        while self._waiting:
            part = self._waiting.popleft()
            self._take(part)
            if part is None:
                return

    def _take(self, part: _Part) -> None:
        match part:
            case Request():
                self._taken = False
                self._receiver.take_head(part)
            case bytes():
                self._receiver.take_body(part)
            case None:
                self._receiver.take_end()
                self._taken = True
            case Refusal():
                raise part

    def _parse(self, data: bytes) -> None:
        alone = self.in_head or not self._in_message
        self._begun = 0
        while data:
            try:
                self._parser.feed_data(data)
                break
            except httptools.HttpParserCallbackError as error:
                if isinstance(error.__context__, Refusal):
                    raise error.__context__ from None
                raise
            except httptools.HttpParserUpgrade as upgrade:
                data = self._without_upgrade() + data[upgrade.args[0] :]
            except httptools.HttpParserError as error:
                problem = f"The request is not valid HTTP: {error}."
                raise Refusal(400, problem) from None
        # The parser reports a line when it is complete, which may be never.
        if self.in_head and alone and self._begun < 2:
            self._unparsed += len(data)
            if self._unparsed > self._most_bytes:
                raise _too_long()

    def _without_upgrade(self) -> bytes:
        """Return the head that was parsed as one without ``Upgrade``, to parse it so.

        A server may ignore that header, as Ollama does: clients that offer HTTP/2 send
        it. The parser takes what follows it for another protocol.
        """
        method, version = self._parser.get_method(), self._parser.get_http_version()
        start = b"%b %b HTTP/%b\r\n" % (method, self.target, version.encode())
        lines = [
            b"%b: %b\r\n" % header
            for header in self.headers
            if header[0].lower() != b"upgrade"
        ]
        self._parser = httptools.HttpRequestParser(self)
        self._upgrades = self._in_message = False
        self._begun -= 1
        return b"".join([start, *lines, b"\r\n"])

    # httptools

    def on_message_begin(self) -> None:
        """Begin a request."""
        self.target, self.headers = b"", []
        self._head_bytes = self._unparsed = 0
        self._begun += 1
        self.in_head = self._in_message = True

    def on_url(self, part: bytes) -> None:
        """Receive a part of the target."""
        self.target += part
        self._head_bytes += len(part)
        if self._head_bytes > self._most_bytes:
            raise _too_long()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Receive a header; fields after the body are not sent on."""
        if not self.in_head:
            return
        self._head_bytes += len(name) + len(value)
        self.headers.append((name, value))
        if (
            self._head_bytes > self._most_bytes
            or len(self.headers) > self._most_headers
        ):
            raise _too_long()

    def on_headers_complete(self) -> None:
        """Hand over the head."""
        self.in_head = False
        request = self._request()
        self._upgrades = self._parser.should_upgrade()
        if not self._upgrades:
            if self._waiting or self._receiver.busy:
                self._waiting.append(request)
            else:
                self._take(request)

    def on_body(self, data: bytes) -> None:
        """Hand over a piece of the body."""
        if self._waiting:
            self._waiting.append(data)
        else:
            self._receiver.take_body(data)

    def on_message_complete(self) -> None:
        """Hand over the end of the request."""
        if self._upgrades:
            return
        self._in_message = False
        if self._waiting:
            self._waiting.append(None)
        else:
            self._take(None)

    def _request(self) -> Request:
        """Return the head that was received.

        Raises:
            Refusal: It is ambiguous, or not supported.
        """
        version = self._parser.get_http_version()
        if version not in {"1.1", "1.0"}:
            raise Refusal(505, f"HTTP/{version} is not supported. Use HTTP/1.1.")
        values = values_of(self.headers)
        coding = values.get(b"transfer-encoding")
        if coding is not None and (coding.lower() != b"chunked" or version == "1.0"):
            raise Refusal(400, "Transfer-Encoding must be 'chunked', over HTTP/1.1.")
        method = self.method
        if method == "CONNECT":
            raise Refusal(501, "CONNECT is not supported.")
        return Request(
            method,
            _origin_form(self.target),
            self.headers,
            values,
            version == "1.0",
            self._parser.should_keep_alive(),
            coding is not None,
        )


def _too_long() -> Refusal:
    return Refusal(431, "The request's headers are too long.")


def _origin_form(target: bytes) -> bytes:
    """Return path and query of a target, which may be a whole URL."""
    if target.startswith(b"/"):
        return target
    if not target.lower().startswith((b"http://", b"https://")):
        return target
    url = urlsplit(target)
    path = url.path or b"/"
    return path + b"?" + url.query if url.query else path
