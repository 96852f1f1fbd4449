"""Heads of requests and answers, as they are sent on (RFC 9110, section 7.6).

Headers that concern one connection only are left out, and so are those that the
``Connection`` header names. All others keep their order, spelling and value.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple, TypeAlias

Headers: TypeAlias = list[tuple[bytes, bytes]]

_HOP_BY_HOP: Final = frozenset(
    {
        *(b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer"),
        *(b"transfer-encoding", b"upgrade", b"proxy-authenticate"),
        b"proxy-authorization",
    }
)
OF_LENGTH: Final = frozenset({b"content-length", b"transfer-encoding"})
_OF_REQUESTS: Final = _HOP_BY_HOP | {b"host", b"expect"}
"""``Host`` is the server's own name: Ollama refuses other names. ``Expect`` is
answered by the gateway."""


Values: TypeAlias = dict[bytes, bytes]
"""The first value of each header, by its name in lower case."""


class Request(NamedTuple):
    """The head of a request, as received.

    Attributes:
        method: The method.
        target: Path and query.
        headers: The headers, in order.
        values: The same, to look one up.
        http_1_0: Whether the client uses HTTP/1.0.
        keep_alive: Whether the client wants to use its connection again.
        chunked: Whether the body is sent in chunks.
    """

    method: str
    target: bytes
    headers: Headers
    values: Values
    http_1_0: bool
    keep_alive: bool
    chunked: bool


class Framing(NamedTuple):
    """How the body of an answer is sent to the client.

    Attributes:
        chunked: Whether it is sent in chunks.
        close: Whether the connection is closed after it.
    """

    chunked: bool
    close: bool


def with_length(request: Request, length: int) -> Request:
    """Return a request whose body has another length."""
    headers = [
        header for header in request.headers if header[0].lower() not in OF_LENGTH
    ]
    headers.append((b"Content-Length", b"%d" % length))
    return request._replace(headers=headers, values=values_of(headers), chunked=False)


def values_of(headers: Headers) -> Values:
    """Return the first value of each header, to look up several."""
    return {name.lower(): value for name, value in reversed(headers)}


def value_of(headers: Headers, name: bytes) -> bytes | None:
    """Return the value of a header; None if it is missing.

    Args:
        headers: The headers.
        name: The name, in lower case.
    """
    for key, value in headers:
        if key.lower() == name:
            return value
    return None


def request_head(
    request: Request,
    *,
    host: bytes,
    prefix: bytes,
    without: frozenset[bytes],
    authorization: bytes = b"",
) -> bytes:
    """Return the head to send to the server.

    Args:
        request: The request.
        host: The server's host and port.
        prefix: Path that the server's URL has; empty in most cases.
        without: Names of further headers to leave out, in lower case.
        authorization: The Authorization header to add; empty for none.
    """
    start = b"%b %b%b HTTP/1.1\r\nHost: %b\r\n"
    lines = [start % (request.method.encode(), prefix, request.target, host)]
    left_out = _OF_REQUESTS | without if without else _OF_REQUESTS
    lines += _kept(request.headers, request.values, left_out)
    if authorization:
        lines.append(b"Authorization: %b\r\n" % authorization)
    if request.chunked:
        lines.append(b"Transfer-Encoding: chunked\r\n")
    lines.append(b"\r\n")
    return b"".join(lines)


def answer_head(
    status: int,
    reason: bytes,
    headers: Headers,
    values: Values,
    request: Request,
    *,
    last: bool,
) -> tuple[bytes, Framing]:
    """Return the head to send to the client, and how the body follows.

    Args:
        status: The status of the server's answer.
        reason: Its reason phrase.
        headers: Its headers, and those to add.
        values: Its headers, to look one up.
        request: The request that it answers.
        last: Whether the connection is to be closed after it in any case.
    """
    bodiless = request.method == "HEAD" or status in {204, 304}
    sized = bodiless or b"content-length" in values
    chunked = not sized and not request.http_1_0
    close = last or not request.keep_alive or not (sized or chunked)
    lines = [b"HTTP/1.1 %d %b\r\n" % (status, reason)]
    lines += _kept(headers, values, _HOP_BY_HOP)
    if chunked:
        lines.append(b"Transfer-Encoding: chunked\r\n")
    if close:
        lines.append(b"Connection: close\r\n")
    elif request.http_1_0:
        lines.append(b"Connection: keep-alive\r\n")
    lines.append(b"\r\n")
    return b"".join(lines), Framing(chunked, close)


def _kept(
    headers: Headers, values: Values, left_out: frozenset[bytes]
) -> Iterable[bytes]:
    """Return the lines of the headers that are sent on."""
    if b"connection" in values:
        left_out |= _named_by_connection(headers)
    return [
        b"%b: %b\r\n" % header
        for header in headers
        if header[0].lower() not in left_out
    ]


def _named_by_connection(headers: Headers) -> frozenset[bytes]:
    """Return the header names that ``Connection`` lists.

    ``Content-Length`` is never one of them: without it the other side would read the
    body as the next message.
    """
    names: set[bytes] = set()
    for key, value in headers:
        if key.lower() == b"connection":
            names |= {name.strip().lower() for name in value.split(b",")}
    return frozenset(names - {b"content-length", b"keep-alive", b"close"})
