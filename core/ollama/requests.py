"""One exchange with the server, without the wire: what is asked, what is understood.

Pure: bytes and a status go in, typed answers or our own errors come out. What is
not Ollama's way of speaking is a ``BadAnswerError``; nothing of it is guessed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeVar

import msgspec

from herdbook.core.errors import BadAnswerError, HerdbookError
from herdbook.core.ollama.bounds import LONGEST_SAID, UNREADABLE
from herdbook.core.ollama.failures import Request, failure
from herdbook.core.ollama.wire import Answer, ErrorAnswer, PullLine

Answered = TypeVar("Answered", bound=Answer)

MOST_LAYERS: Final = 1000
"""Layers that a pull may name; a model has about ten."""


class ClientLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How long and how much the client takes from a server.

    Attributes:
        connect_s: Seconds until a connection stands, or one of the pool is free.
        answer_s: Seconds for an answer to what is answered at once; a starting
            server reads all its models before it lists them.
        answer_bytes: The longest answer; a list of 5,000 models has 3 MB. One
            of 16 MiB is decoded in less than 0.1 s.
        refusal_bytes: How much is read of an answer that is a refusal.
        line_bytes: The longest line of a stream; the longest text that a server
            passes on has 8 KiB.
        connections: Connections at a time; each pull and each load holds one.
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
        method: Of HTTP.
        path: Of the endpoint.
        body: What is sent as JSON.
        about: The model; empty where it is about the server.
        request: What it is for, which tells how to read a refusal.
        endless: Whether the answer may take any time.
    """

    method: str
    path: str
    body: dict[str, object] | None = None
    about: str = ""
    request: Request = Request.LOOK
    endless: bool = False


def read(body: bytes, kind: type[Answered], *, node: str) -> Answered:
    """Read a whole answer, or a line.

    Raises:
        BadAnswerError: It is no JSON, or of another form.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except UNREADABLE as error:
        raise BadAnswerError(node, raw=str(error)) from error


def refusal(call: Call, status: int, body: bytes, *, node: str) -> HerdbookError:
    """Return the error for an answer whose status is not 200."""
    try:
        said = msgspec.json.decode(body, type=ErrorAnswer).said
    except UNREADABLE:
        said = None
    return failure(
        call.request,
        call.about or node,
        status=status,
        said=said,
        body=body[:LONGEST_SAID].decode(errors="replace"),
    )


class LineReader:
    """Lines of a stream from the chunks that they come in, none of them endless.

    A line without its end is none: the stream was cut there.
    """

    def __init__(self, call: Call, *, node: str, longest: int) -> None:
        self._call = call
        self._node = node
        self._longest = longest
        self._rest = b""
        self._layers: set[str] = set()

    def feed(self, chunk: bytes) -> Iterator[PullLine]:
        """Yield the lines that are whole now.

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

    def _check(self, line: bytes) -> None:
        if len(line) > self._longest:
            raise BadAnswerError(self._node, raw=f"a line of over {self._longest} B")

    def _read(self, line: bytes) -> PullLine:
        error = read(line, ErrorAnswer, node=self._node).said
        if error is not None:
            about = self._call.about
            raise failure(self._call.request, about, status=200, said=error)
        told = read(line, PullLine, node=self._node)
        if told.digest is not None:
            self._layers.add(told.digest)
            if len(self._layers) > MOST_LAYERS:
                raise BadAnswerError(self._node, raw=f"over {MOST_LAYERS:,} layers")
        return told
