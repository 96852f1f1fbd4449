"""Recorded answers of a real Ollama server, and a transport that replays them.

``fixtures/wire`` holds one file per scenario, of a server of August 2026;
``fixtures/wire/older`` the same of version 0.9.6, where they apply. Nothing in them
is edited but the server's folder of models (``/models``).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import cache
from pathlib import Path

import httpx
import msgspec
from msgspec import UNSET, UnsetType

WIRE = Path(__file__).parents[2] / "fixtures" / "wire"


class RecordedRequest(msgspec.Struct, frozen=True):
    """A recorded request."""

    method: str
    path: str
    json: object = None


class Line(msgspec.Struct, frozen=True):
    """A line of a stream, and its time."""

    at: float
    json: dict[str, object]


class RecordedAnswer(msgspec.Struct, frozen=True):
    """A recorded answer: a body, the lines of a stream, or nothing."""

    status: int | None = None
    headers: dict[str, str] = {}
    json: object | UnsetType = UNSET
    text: str = ""
    lines: list[Line] = []
    broken: str | None = None

    @property
    def error(self) -> str | None:
        """The error of the server, in the body or in a line."""
        for value in (self.json, *(line.json for line in self.lines)):
            if isinstance(value, dict) and "error" in value:
                return str(value["error"])
        return None

    @property
    def body(self) -> bytes:
        """The body as it was received, as far as its form matters."""
        if self.lines:
            return b"".join(self.chunks())
        if self.json is UNSET:
            return self.text.encode()
        return msgspec.json.encode(self.json)

    def chunks(self) -> Iterator[bytes]:
        """Yield the lines, each with its end."""
        for line in self.lines:
            yield msgspec.json.encode(line.json) + b"\n"


class Exchange(msgspec.Struct, frozen=True):
    """A request and its answer; steps of a scenario without a request have none."""

    request: RecordedRequest | None = None
    response: RecordedAnswer = RecordedAnswer()


class Scenario(msgspec.Struct, frozen=True):
    """One recording."""

    scenario: str
    exchanges: list[Exchange]


@cache
def scenarios() -> dict[str, Scenario]:
    """Return the recordings by file name, but for those of other clients (``use``)."""
    return {
        str(path.relative_to(WIRE)): msgspec.json.decode(
            path.read_bytes(), type=Scenario
        )
        for path in sorted(WIRE.rglob("*.json"))
        if path.parent != WIRE / "use"
    }


def recorded_answers(
    method: str, path: str
) -> Iterator[tuple[str, RecordedAnswer, RecordedRequest]]:
    """Yield all answers of an endpoint, with the name of the file."""
    for file, scenario in scenarios().items():
        for exchange in scenario.exchanges:
            asked, answer = exchange.request, exchange.response
            if asked and (asked.method, asked.path) == (method, path) and answer.status:
                yield file, answer, asked


def replaying_transport(answer: RecordedAnswer) -> httpx.MockTransport:
    """Return a server that gives this answer to every request."""

    async def stream() -> AsyncIterator[bytes]:
        for chunk in answer.chunks():
            yield chunk
        if answer.broken is not None:
            raise httpx.RemoteProtocolError(answer.broken.partition(": ")[2])

    def handler(request: httpx.Request) -> httpx.Response:
        content = stream() if answer.lines else answer.body
        kind = answer.headers.get("content-type", "")
        headers = {"content-type": kind} if kind else {}
        return httpx.Response(answer.status or 500, headers=headers, content=content)

    return httpx.MockTransport(handler)
