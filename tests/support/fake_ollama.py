"""A small HTTP server that answers as a test says, for faults the sandbox lacks."""

from __future__ import annotations

import asyncio
import json
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple, TypeAlias

DIGEST = "a" * 64


class Reply(NamedTuple):
    """An answer; without a status, the connection stays silent, or is closed."""

    body: object = None
    status: int | None = 200
    headers: Mapping[str, str] = {}


HANGS = Reply(status=None)
BREAKS_OFF = Reply(status=None, headers={"connection": "close"})
NOT_FOUND = Reply("404 page not found", 404)

Answers: TypeAlias = Callable[[str, dict[str, str], dict[str, object]], Reply]
"""Returns the reply to a path, the headers (in lower case) and the JSON body."""


def tag(name: str, digest: str = DIGEST) -> dict[str, object]:
    """Return an entry of the list of models, as older servers send it."""
    details = {"family": "llama", "parameter_size": "8.0B"}
    return {"name": name, "digest": digest, "size": 4_000_000_000, "details": details}


def show(**fields: object) -> dict[str, object]:
    """Return the details of a model."""
    info = {"general.architecture": "llama", "llama.context_length": 131072}
    modelfile = f"FROM /models/blobs/sha256-{'d' * 64}"
    return {"modelfile": modelfile, "details": {}, "model_info": info, **fields}


def answers(
    *names: str, shown: dict[str, object] | None = None, **others: Reply
) -> Answers:
    """Return the answers of a server with models, some of them replaced.

    Args:
        names: The models.
        shown: The details of each of them.
        others: Replies by the last part of the path, such as ``ps``.
    """
    replies = {
        "version": Reply({"version": "0.33.0"}),
        "tags": Reply({"models": [tag(name) for name in names]}),
        "ps": Reply({"models": []}),
        "show": Reply(shown or show()),
        **others,
    }
    return lambda path, _headers, _body: replies.get(
        path.removeprefix("/api/"), NOT_FOUND
    )


@asynccontextmanager
async def fake_ollama(replies: Answers) -> AsyncIterator[str]:
    """Serve answers; yield the URL."""

    async def handle(reader: StreamReader, writer: StreamWriter) -> None:
        try:
            while line := await reader.readline():
                path = line.split()[1].decode()
                headers: dict[str, str] = {}
                while (header := await reader.readline()).strip():
                    name, _, value = header.decode().partition(":")
                    headers[name.lower()] = value.strip()
                raw = await reader.readexactly(int(headers.get("content-length", 0)))
                reply = replies(path, headers, json.loads(raw) if raw else {})
                if reply.status is None:
                    if reply != BREAKS_OFF:
                        await reader.read()
                    return
                _write(writer, reply)
                await writer.drain()
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


def _write(writer: StreamWriter, reply: Reply) -> None:
    text = reply.body if isinstance(reply.body, str) else json.dumps(reply.body)
    head = [f"HTTP/1.1 {reply.status} X", f"content-length: {len(text.encode())}"]
    head += [f"{name}: {value}" for name, value in reply.headers.items()]
    writer.write(("\r\n".join(head) + "\r\n\r\n" + text).encode())
