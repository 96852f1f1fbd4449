"""Write answers as the server does, down to their bytes.

Invariant: JSON is written as Go writes it: no spaces, and the three characters that
HTML knows are escaped. A body of more than 2 kB is sent in chunks.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Final

import msgspec

from herdbook.sandbox.request_bodies import Json

JSON: Final = "application/json; charset=utf-8"
PLAIN_JSON: Final = "application/json"
LINES: Final = "application/x-ndjson"
TEXT: Final = "text/plain; charset=utf-8"
HTML: Final = "text/html; charset=utf-8"
PLAIN_TEXT: Final = "text/plain"
EVENTS: Final = "text/event-stream"

#: Headers of an answer without a length, although it is short.
WITHOUT_LENGTH: Final = {"content-length": ""}

#: Go sends the length of bodies that fit in its buffer.
_BUFFER_SIZE: Final = 2048


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer."""

    status: int = 200
    body: bytes = b""
    content_type: str = ""
    headers: dict[str, str] = {}

    @property
    def all_headers(self) -> dict[str, str]:
        """The headers as they are sent."""
        headers = {"content-type": self.content_type} if self.content_type else {}
        if len(self.body) <= _BUFFER_SIZE:
            headers["content-length"] = str(len(self.body))
        return headers | self.headers


class Lines:
    """The lines of a stream that has started.

    The first line is already there, because a failure before it is an answer of its
    own. Closing the lines ends what produces them, however few were read.

    Attributes:
        first: The first line.
    """

    def __init__(self, first: Json, rest: AsyncGenerator[Json, None]) -> None:
        self.first = first
        self._first: list[Json] = [first]
        self._rest = rest

    @classmethod
    async def start(cls, source: AsyncGenerator[Json, None]) -> Lines:
        """Wait for the first line."""
        return cls(await anext(source), source)

    def __aiter__(self) -> Lines:
        return self

    async def __anext__(self) -> Json:
        return self._first.pop() if self._first else await anext(self._rest)

    async def aclose(self) -> None:
        """End what produces the lines."""
        await self._rest.aclose()


def encode(value: object) -> bytes:
    """Write JSON as Go does."""
    raw = msgspec.json.encode(value)
    for character, escape in (
        (b"<", b"\\u003c"),
        (b">", b"\\u003e"),
        (b"&", b"\\u0026"),
    ):
        raw = raw.replace(character, escape)
    return raw


def json_answer(value: Json, *, status: int = 200, plain: bool = False) -> Answer:
    """Answer with JSON."""
    kind = PLAIN_JSON if plain else JSON
    return Answer(status=status, body=encode(value), content_type=kind)


def refusal_answer(status: int, text: str, *, plain: bool = False) -> Answer:
    """Answer with an error."""
    return json_answer({"error": text}, status=status, plain=plain)


def line(value: Json) -> bytes:
    """Write one line of a stream."""
    return encode(value) + b"\n"


def data_line(value: Json) -> bytes:
    """Write one event of OpenAI's streams; a value without keys ends the stream."""
    return b"data: %b\n\n" % (encode(value) if value else b"[DONE]")


def event_lines(value: Json) -> bytes:
    """Write one event of Anthropic's streams, under its type."""
    return b"event: %b\ndata: %b\n\n" % (str(value["type"]).encode(), encode(value))


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that is sent line by line.

    Attributes:
        lines: The values of the lines.
        content_type: The media type.
        write: Encodes a line.
        headers: Further headers.
    """

    lines: Lines
    content_type: str = LINES
    write: Callable[[Json], bytes] = line
    headers: dict[str, str] = {}


def with_headers(answer: Answer | Stream, headers: dict[str, str]) -> Answer | Stream:
    """Return an answer with further headers; those that it has stay."""
    return msgspec.structs.replace(answer, headers=headers | answer.headers)
