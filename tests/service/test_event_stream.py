"""The live stream: queues are limited, and slow readers get the reason."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from support.manager_fixture import SandboxServer, serve_sandbox

from herdbook.core import Fleet, HistoryFilter, ModelManager, RecordedEvent
from herdbook.service.event_stream import (
    EndOfStream,
    Heartbeat,
    Live,
    Reason,
    StreamFilter,
)

ALL = StreamFilter()
HERE = "gemma3:4b"


@asynccontextmanager
async def live_of(
    fleet: Fleet,
    server: SandboxServer,
    *,
    most: int = 1000,
    heartbeat_s: float = 60.0,
) -> AsyncIterator[Live]:
    live = Live(fleet, server.clock, reader_events=most, heartbeat_s=heartbeat_s)
    async with live.running():
        yield live


async def positions(live: Live, after: int, upto: int) -> list[int]:
    """Read after a position up to another one."""
    found: list[int] = []
    async with aclosing(live.read(after, ALL)) as messages:
        async for message in messages:
            if isinstance(message, RecordedEvent):
                found.append(message.position)
                if message.position >= upto:
                    return found
    return found


async def use(manager: ModelManager, count: int) -> int:
    """Record so many uses, and return the last position."""
    for _ in range(count):
        await manager.mark_used(HERE)
    return (await manager.head()).position


async def test_reader_that_catches_up_with_a_growing_log_misses_nothing() -> None:
    async with (
        serve_sandbox("some") as server,
        server.open_fleet() as fleet,
        live_of(fleet, server) as live,
    ):
        readers = [asyncio.create_task(positions(live, n, 200)) for n in range(5)]
        await use(fleet.home, 200)

        async with asyncio.timeout(20):
            found = await asyncio.gather(*readers)

    assert [one[:5] for one in found] == [[*range(n + 1, n + 6)] for n in range(5)]
    for number, one in enumerate(found):
        assert one == list(range(number + 1, one[-1] + 1))


async def test_slow_reader_is_disconnected_with_a_reason() -> None:
    async with (
        serve_sandbox("some") as server,
        server.open_fleet() as fleet,
        live_of(fleet, server, most=10) as live,
    ):
        begin = (await fleet.home.head()).position
        async with aclosing(live.read(begin, ALL)) as slow:
            await use(fleet.home, 1)
            first = await anext(slow)
            await use(fleet.home, 30)  # it takes none of them
            while live.position < begin + 31:
                await asyncio.sleep(0)
            rest = [message async for message in slow]

        assert isinstance(first, RecordedEvent)
        assert first.position == begin + 1
        assert rest == [EndOfStream(Reason.TOO_SLOW)]
        assert live.readers == 0
        # It continues after what it has seen.
        assert await positions(live, begin + 1, begin + 31) == list(
            range(begin + 2, begin + 32)
        )


async def test_slow_reader_does_not_delay_others() -> None:
    async with (
        serve_sandbox("some") as server,
        server.open_fleet() as fleet,
        live_of(fleet, server, most=10) as live,
    ):
        begin = (await fleet.home.head()).position
        async with aclosing(live.read(begin, ALL)) as slow:
            reading = asyncio.create_task(positions(live, begin, begin + 40))
            await use(fleet.home, 1)
            await anext(slow)
            await use(fleet.home, 39)

            async with asyncio.timeout(20):
                assert len(await reading) == 40


async def test_heartbeat_has_the_last_read_position() -> None:
    async with (
        serve_sandbox("some") as server,
        server.open_fleet() as fleet,
        live_of(fleet, server, heartbeat_s=0.01) as live,
    ):
        begin = await use(fleet.home, 1)
        wanted = StreamFilter(chosen=HistoryFilter(types=frozenset({"PullFailed"})))
        async with aclosing(live.read(0, wanted)) as messages:
            beat = await anext(messages)

        assert beat == Heartbeat(begin)


async def test_events_of_another_process_are_sent(tmp_path: Path) -> None:
    log = tmp_path / "herd.db"
    async with (
        serve_sandbox("some") as server,
        server.open_fleet(log) as fleet,
        server.open_manager(log, refresh=False) as other,
        live_of(fleet, server) as live,
    ):
        begin = (await fleet.home.head()).position
        reading = asyncio.create_task(positions(live, begin, begin + 3))
        await use(other, 3)

        async with asyncio.timeout(20):
            assert await reading == [begin + 1, begin + 2, begin + 3]


async def test_closed_hub_says_goodbye_at_once() -> None:
    async with (
        serve_sandbox("some") as server,
        server.open_fleet() as fleet,
        live_of(fleet, server) as live,
    ):
        live.close(Reason.STOPPING)
        begin = (await fleet.home.head()).position
        messages = [message async for message in live.read(begin, ALL)]

    assert messages == [EndOfStream(Reason.STOPPING)]
