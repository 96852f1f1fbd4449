"""Recordings of a server in use, played through the gateway over the sandbox.

A tap between gateway and sandbox shows the bytes that the sandbox sent. The client must
receive the same.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httptools
import httpx
import pytest
from support.gateway.scripted import gateway
from support.recordings.wire import WIRE

from herdbook.sandbox import RealClock, Settings, World, serve

RECORDINGS = sorted((WIRE / "use").glob("*.json"))

#: Headers of one connection, which may differ.
OF_CONNECTION = {"transfer-encoding", "connection", "keep-alive"}


class Tap:
    """A relay of TCP that keeps what the server sends."""

    def __init__(self, server: str) -> None:
        self.sent = b""
        self._url = urlsplit(server)

    async def relay(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        host, port = self._url.hostname, self._url.port
        from_server, to_server = await asyncio.open_connection(host, port)
        pumps = [
            asyncio.create_task(self._pump(reader, to_server, keep=False)),
            asyncio.create_task(self._pump(from_server, writer, keep=True)),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        writer.transport.abort()
        to_server.transport.abort()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        keep: bool,
    ) -> None:
        try:
            while data := await reader.read(65_536):
                if keep:
                    self.sent += data
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass


class Answer:
    """An answer as its bytes show it."""

    def __init__(self, raw: bytes) -> None:
        self.headers: dict[str, str] = {}
        self.body = b""
        parser = httptools.HttpResponseParser(self)
        parser.feed_data(raw)
        self.status = parser.get_status_code()

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode().lower()] = value.decode()

    def on_body(self, data: bytes) -> None:
        self.body += data


@asynccontextmanager
async def tapped() -> AsyncIterator[tuple[Tap, httpx.AsyncClient]]:
    """Serve a sandbox, a tap and a gateway; give the tap and a client."""
    world = World(
        models="use", clock=RealClock(speed=100), settings=Settings(token_s=0.01)
    )
    async with serve(world) as server:
        tap = Tap(server)
        listening = await asyncio.start_server(tap.relay, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        async with gateway(f"http://127.0.0.1:{port}") as address:
            async with httpx.AsyncClient(base_url=address, timeout=30) as client:
                yield tap, client
        listening.close()
        await listening.wait_closed()


def keys(value: Any) -> Any:
    """Return the keys of a JSON value in order; values of lists are left out."""
    if isinstance(value, dict):
        return [(key, keys(one)) for key, one in value.items()]
    return None


def is_whole(body: Any) -> bool:
    """Return whether a recorded answer was not cut short by half a character."""
    if not isinstance(body, dict) or body.get("model") == "":
        return False
    if body.get("done") is False:
        return False
    choices = body.get("choices")
    return not choices or choices[0]["finish_reason"] is not None


def sent(request: dict[str, Any]) -> bytes | None:
    if "json" in request:
        return json.dumps(request["json"]).encode()
    body = request.get("body")
    return None if body is None else str(body).encode()


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
async def test_answers_pass_unchanged_and_are_like_the_recorded_ones(
    path: Path,
) -> None:
    exchanges = json.loads(path.read_text())["exchanges"]
    async with tapped() as (tap, client):
        for number, exchange in enumerate(exchanges):
            request, recorded = exchange["request"], exchange["response"]
            tap.sent = b""
            answer = await client.request(
                request["method"],
                request["path"],
                content=sent(request),
                headers={"Accept-Encoding": "identity", **request.get("headers", {})},
            )
            what = f"exchange {number}: {exchange.get('label')}"
            original = Answer(tap.sent)
            assert answer.content == original.body, what
            assert answer.status_code == original.status, what
            theirs = [h for h in original.headers.items() if h[0] not in OF_CONNECTION]
            ours = [h for h in answer.headers.items() if h[0] not in OF_CONNECTION]
            assert ours == theirs, what

            assert answer.status_code == recorded["status"], what
            assert answer.headers["content-type"] == recorded["headers"]["content-type"]
            if is_whole(recorded.get("json")):
                assert keys(answer.json()) == keys(recorded["json"]), what


def test_all_recordings_of_use_are_played() -> None:
    assert len(RECORDINGS) == 8
