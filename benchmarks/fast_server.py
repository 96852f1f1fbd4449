"""The floor of a gateway: a server that answers as Ollama does, with fixed bytes.

``python -m benchmarks.fast_server`` prints its address. A generation is a stream of
five chunks, sent at once. A chat is a stream of ``CHUNKS``, sent one by one.
"""

from __future__ import annotations

import asyncio
import json
from typing import Final

MODEL: Final = "m:1"
CHUNKS: Final = 100
_CHUNK_EVERY_S: Final = 0.01
_DIGEST: Final = "a" * 64
_DETAILS: Final = {"format": "gguf", "family": "llama", "parameter_size": "8.0B"}
_PAGES: Final = {
    b"/api/version": {"version": "0.33.0"},
    b"/api/tags": {
        "models": [
            {
                "name": MODEL,
                "model": MODEL,
                "modified_at": "2025-01-01T00:00:00Z",
                "size": 4_000_000_000,
                "digest": _DIGEST,
                "details": _DETAILS,
            }
        ]
    },
    b"/api/ps": {
        "models": [
            {
                "name": MODEL,
                "model": MODEL,
                "size": 5_000_000_000,
                "digest": _DIGEST,
                "details": _DETAILS,
                "expires_at": "2099-01-01T00:00:00Z",
                "size_vram": 5_000_000_000,
                "context_length": 4096,
            }
        ]
    },
    b"/api/show": {
        "modelfile": f"FROM /m/blobs/sha256-{'b' * 64}",
        "details": _DETAILS,
        "model_info": {
            "general.architecture": "llama",
            "llama.context_length": 8192,
        },
        "capabilities": ["completion", "tools"],
    },
}


def _page(body: object) -> bytes:
    raw = json.dumps(body).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    return head + b"Content-Length: %d\r\n\r\n" % len(raw) + raw


def _stream() -> tuple[bytes, bytes, bytes]:
    """Return the start of a stream, a chunk and its end."""
    word = {"model": MODEL, "response": "word", "done": False}
    last = {
        "model": MODEL,
        "response": "",
        "done": True,
        "done_reason": "stop",
        "load_duration": 1_000,
        "prompt_eval_count": 11,
        "eval_count": 4,
    }
    lines = [json.dumps(line).encode() + b"\n" for line in (word, last)]
    chunk, end = (b"%x\r\n%b\r\n" % (len(line), line) for line in lines)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
    framing = b"Transfer-Encoding: chunked\r\n\r\n"
    return head + framing, chunk, end + b"0\r\n\r\n"


_ANSWERS: Final = {path: _page(body) for path, body in _PAGES.items()}
_START, _CHUNK, _END = _stream()
_GENERATED: Final = _START + 4 * _CHUNK + _END


class FastServer(asyncio.Protocol):
    """Answers each request with the fixed bytes of its path."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._received = b""

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        _, found, length = head.lower().partition(b"content-length: ")
        wanted = int(length.partition(b"\r\n")[0]) if found else 0
        if end and len(body) >= wanted:
            self._received = b""
            path = head.split(b" ", 2)[1]
            if path == b"/api/chat":
                self._transport.write(_START)
                self._send_chunks(CHUNKS - 1)
            else:
                self._transport.write(_ANSWERS.get(path, _GENERATED))

    def _send_chunks(self, left: int) -> None:
        """Send the rest of a stream."""
        if not left:
            self._transport.write(_END)
            return
        self._transport.write(_CHUNK)
        loop = asyncio.get_running_loop()
        loop.call_later(_CHUNK_EVERY_S, self._send_chunks, left - 1)


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(FastServer, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    print(f"http://{host}:{port}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve())
