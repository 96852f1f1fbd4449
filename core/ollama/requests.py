"""Requests and the decoding of their answers, without I/O.

Decoding takes bytes and a status, and returns typed answers or raises Herdbook
errors. An answer in another form than Ollama's is a ``BadAnswerError``; nothing in
it is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, TypeVar
from urllib.parse import urljoin

import msgspec

from herdbook.core.errors import BadAnswerError, HerdbookError
from herdbook.core.errors.validation import violation
from herdbook.core.ollama.bounds import LONGEST_MESSAGE, UNREADABLE, printable
from herdbook.core.ollama.failures import TOO_MANY_REQUESTS, Request, failure
from herdbook.core.ollama.html_pages import is_page, page_text
from herdbook.core.ollama.wire import Answer, ErrorAnswer, PullLine

Answered = TypeVar("Answered", bound=Answer)

_USERINFO: Final = re.compile(r"//[^/]*@")

MOST_LAYERS: Final = 1000
"""Maximum layers in a pull; a model has about ten."""


class ClientLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of time and size for the client.

    Attributes:
        connect_s: Seconds to connect, or to wait for a free connection of the pool.
        answer_s: Seconds to answer a short request; a starting server reads all its
            models before it lists them.
        answer_bytes: Maximum size of an answer; a list of 5,000 models has 3 MB, and
            16 MiB are decoded in less than 0.1 s.
        refusal_bytes: Bytes read of an error answer.
        line_bytes: Maximum size of a line of a stream; the longest text that a
            server forwards has 8 KiB.
        connections: Maximum connections; each pull and each load holds one.
    """

    connect_s: float = 5.0
    answer_s: float = 30.0
    answer_bytes: int = 16 * 2**20
    refusal_bytes: int = 64 * 2**10
    line_bytes: int = 64 * 2**10
    connections: int = 64


class Call(msgspec.Struct, frozen=True):
    """A request.

    Attributes:
        method: The HTTP method.
        path: The endpoint.
        body: The JSON to send.
        about: The model; empty if the request is about the server.
        request: The kind of the request, which decides how errors are read.
        endless: Whether the answer may take any time.
        optional: Whether older or partial servers lack the endpoint.
    """

    method: str
    path: str
    body: dict[str, object] | None = None
    about: str = ""
    request: Request = Request.READ
    endless: bool = False
    optional: bool = False


class MissingEndpointError(Exception):
    """The server lacks an optional endpoint; handled inside the client."""


MISSING: Final = frozenset({404, 405, 501})
"""Statuses of an endpoint that the server lacks."""


def read(body: bytes, kind: type[Answered], *, node: str) -> Answered:
    """Decode an answer or a line.

    Raises:
        BadAnswerError: It is not JSON, or has another form.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except UNREADABLE as error:
        reason = (
            "an HTML page, not JSON"
            if is_page(body)
            else violation(str(error)).text("it")
        )
        raise BadAnswerError(node, raw=error_in(body) or reason) from error


def error_in(body: bytes) -> str | None:
    """Return the error that an answer reports in spite of its status; None if none."""
    try:
        return msgspec.json.decode(body, type=ErrorAnswer).message
    except UNREADABLE:
        return None


def refusal(call: Call, status: int, body: bytes, *, node: str) -> HerdbookError:
    """Return the error for an answer whose status is not 200."""
    message = error_in(body)
    about_model = message is not None and status != TOO_MANY_REQUESTS
    return failure(
        call.request,
        (about_model and call.about) or node,
        status=status,
        message=message,
        body=page_text(body[:LONGEST_MESSAGE].decode(errors="replace")),
    )


def redirected(node: str, url: str, target: str, call: Call) -> HerdbookError:
    """Return the error for a redirect, with the address to use instead.

    Args:
        node: The server, as the error's subject.
        url: The requested URL.
        target: The Location header.
        call: The request, whose path is not part of the address.
    """
    address = _USERINFO.sub("//", urljoin(url, target)).partition("?")[0]
    address = printable(address.removesuffix(call.path).rstrip("/"), 200)
    return BadAnswerError(
        node,
        raw=address,
        problem="redirects to {raw}",
        advice="If that is your Ollama server, use its address in OLLAMA_HOST (for an "
        "added node, with 'herdbook node move')",
    )


class LineReader:
    """Splits a stream into lines of limited length.

    A line without a newline counts if the stream ended as HTTP says it should; see
    ``end``. If the connection broke, the rest of the stream is dropped.
    """

    def __init__(self, call: Call, *, node: str, longest: int) -> None:
        self._call = call
        self._node = node
        self._longest = longest
        self._rest = b""
        self._layers: set[str] = set()

    def feed(self, chunk: bytes) -> Iterator[PullLine]:
        """Yield the lines that are complete now.

        Raises:
            HerdbookError: What the server says went wrong, in a line.
            BadAnswerError: A line is too long, or none of Ollama's.
        """
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        for line in whole:
            self._check(line)
            if line.strip():
                yield self._read(line)
        self._check(self._rest)

    def end(self) -> Iterator[PullLine]:
        """Yield the last line if the stream ended properly and without a newline.

        Raises:
            HerdbookError: The line is an error of the server.
        """
        rest, self._rest = self._rest, b""
        if not rest.strip():
            return
        try:
            line = self._read(rest)
        except BadAnswerError:  # half a line
            return
        yield line

    def _check(self, line: bytes) -> None:
        if len(line) > self._longest:
            raise BadAnswerError(self._node, raw=f"a line of over {self._longest} B")

    def _read(self, line: bytes) -> PullLine:
        error = read(line, ErrorAnswer, node=self._node).message
        if error is not None:
            about = self._call.about
            raise failure(self._call.request, about, status=200, message=error)
        progress = read(line, PullLine, node=self._node)
        if progress.digest is not None:
            self._layers.add(progress.digest)
            if len(self._layers) > MOST_LAYERS:
                raise BadAnswerError(self._node, raw=f"over {MOST_LAYERS:,} layers")
        return progress
