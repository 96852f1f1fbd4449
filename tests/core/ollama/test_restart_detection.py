"""An idle connection shows whether the server's process is still the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from herdbook.core.clock import SystemClock
from herdbook.core.ollama.restart_detection import (
    UNEXPLAINED,
    Continuity,
    HeldConnection,
)


class Server:
    """A server that accepts connections and answers nothing."""

    def __init__(self) -> None:
        self.accepted: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
        self.url = ""

    async def close_newest(self, *, write: bytes = b"") -> None:
        """Close the newest connection, after writing something."""
        writer = await self.accepted.get()
        writer.write(write)
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    """Serve while the block runs."""
    found = Server()

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.accepted.put_nowait(writer)

    listening = await asyncio.start_server(accept, "127.0.0.1", 0)
    found.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    async with listening:
        yield found
        while not found.accepted.empty():
            found.accepted.get_nowait().close()


async def seen_after(held: HeldConnection, expected: Continuity) -> Continuity:
    """Wait until the event loop has seen the end of a connection."""
    for _ in range(200):
        if held.continuity() is expected:
            break
        await asyncio.sleep(0.01)
    return held.continuity()


async def refresh(held: HeldConnection, *, restarted: bool = False) -> Continuity:
    """Refresh, and return what was known about the time since the previous one."""
    await held.begin()
    found = held.continuity()
    held.complete(restarted=restarted)
    return found


async def test_later_refreshes_recognize_the_same_process() -> None:
    async with serving() as server:
        held = HeldConnection(server.url, SystemClock())

        found = [await refresh(held) for _ in range(3)]
        held.close()

    assert found == [Continuity.UNKNOWN, Continuity.SAME, Continuity.SAME]


async def test_closed_connection_is_noticed_once_and_reopened() -> None:
    async with serving() as server:
        held = HeldConnection(server.url, SystemClock())
        await refresh(held)
        await server.close_newest()
        assert await seen_after(held, Continuity.CLOSED) is Continuity.CLOSED

        found = [await refresh(held, restarted=True), await refresh(held)]
        held.close()

    assert found == [Continuity.CLOSED, Continuity.SAME]


async def test_repeated_closes_without_restarts_are_not_evidence() -> None:
    async with serving() as server:
        held = HeldConnection(server.url, SystemClock())
        await refresh(held)
        for _ in range(UNEXPLAINED):
            await server.close_newest()
            await seen_after(held, Continuity.CLOSED)
            assert await refresh(held) is Continuity.CLOSED

        await server.close_newest()
        await seen_after(held, Continuity.UNKNOWN)
        found = await refresh(held)
        held.close()

    assert found is Continuity.UNKNOWN


async def test_close_by_a_proxy_that_wrote_first_is_not_evidence() -> None:
    async with serving() as server:
        held = HeldConnection(server.url, SystemClock())
        await refresh(held)
        await refresh(held)
        await server.close_newest(write=b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        await seen_after(held, Continuity.UNKNOWN)
        found = await refresh(held)
        held.close()

    assert found is Continuity.UNKNOWN


async def test_unreachable_server_is_not_an_error() -> None:
    held = HeldConnection("http://127.0.0.1:9", SystemClock())

    assert await refresh(held) is Continuity.UNKNOWN
    assert await refresh(held) is Continuity.UNKNOWN
