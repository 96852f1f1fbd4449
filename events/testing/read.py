"""The contract of reading: pages, filters, subscriptions, snapshots, closing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from itertools import pairwise

import msgspec

from herdbook.events.errors import CallerError, StoreClosedError
from herdbook.events.facts import ModelUsed
from herdbook.events.recorded import RecordedEvent, canonical_bytes, chained_hash
from herdbook.events.snapshots import StoredView
from herdbook.events.store import ANY
from herdbook.events.testing.base import Case, Opener, event, log_of, refused


async def _take(events: AsyncIterator[RecordedEvent], count: int) -> list[int]:
    return [(await anext(events)).position for _ in range(count)]


async def _drain(events: AsyncIterator[object]) -> int:
    return len([event async for event in events])


async def stream_is_read_from_any_version(open_: Opener) -> None:
    """From a version, up to a limit; an unknown stream is empty."""
    async with open_() as store:
        for stream in ("model/n/a", "model/n/b", "model/n/a"):
            await store.append(stream, [event(), event()], ANY)
        for after, limit, versions in (
            (0, None, [1, 2, 3, 4]),
            (1, 2, [2, 3]),
            (3, 100, [4]),
            (4, None, []),
            (99, None, []),
            (0, 0, []),
        ):
            read = store.read_stream("model/n/a", after_version=after, limit=limit)
            assert [e.version async for e in read] == versions
        assert await _drain(store.read_stream("model/n/none")) == 0


async def log_is_filtered(open_: Opener) -> None:
    """By position, prefix and type; a prefix is text, not a pattern."""
    async with open_() as store:
        for stream in ("model/a/x", "model/A/x", "model/a_/x", "model/a%/x"):
            await store.append(stream, [event(), event(fact=ModelUsed())], ANY)

        async def positions(
            prefix: str = "",
            types: Collection[str] | None = None,
            after: int = 0,
            limit: int | None = None,
        ) -> list[int]:
            read = store.read_all(
                after=after, limit=limit, stream_prefix=prefix, types=types
            )
            return [e.position async for e in read]

        assert await positions() == [1, 2, 3, 4, 5, 6, 7, 8]
        assert await positions(after=6) == [7, 8]
        assert await positions(limit=2) == [1, 2]
        assert await positions(limit=0) == []
        assert await positions("model/a") == [1, 2, 5, 6, 7, 8]
        assert await positions("model/a_") == [5, 6]
        assert await positions("model/a%") == [7, 8]
        assert await positions(types=["ModelUsed"]) == [2, 4, 6, 8]
        assert await positions(types=["ModelUsed", "ConfigurationChanged"], limit=3)
        assert await positions(types=["NoSuchType"]) == []
        assert await positions(types=[]) == []
        assert await positions("model/a", {"ModelUsed"}, after=2, limit=2) == [6, 8]


async def long_log_is_read_whole(open_: Opener) -> None:
    """For any page size, each event is read once, in order."""
    async with open_() as store:
        await store.append("model/n/m", [event() for _ in range(2500)], ANY)
        whole = list(range(1, 2501))
        assert [e.position for e in await log_of(store)] == whole
        filtered = store.read_all(stream_prefix="model/", limit=2100)
        assert [e.position async for e in filtered] == whole[:2100]
        stream = store.read_stream("model/n/m", limit=2000)
        assert [e.version async for e in stream] == whole[:2000]
        stored = store.read_stored(after=400)
        assert [e.position async for e in stored] == whole[400:]


async def stored_events_are_chained(open_: Opener) -> None:
    """Each hash covers the previous hash and the canonical bytes."""
    async with open_() as store:
        await store.append("model/n/m", [event() for _ in range(5)], ANY)
        stored = [e async for e in store.read_stored()]
        assert stored[0].hash == chained_hash("0" * 64, canonical_bytes(stored[0]))
        for before, after in pairwise(stored):
            assert after.hash == chained_hash(before.hash, canonical_bytes(after))


async def bad_positions_are_the_callers_error(open_: Opener) -> None:
    """Positions and limits are numbers from 0, and texts are Unicode."""
    async with open_() as store:
        reads: tuple[Callable[[], AsyncIterator[object]], ...] = (
            lambda: store.read_all(after=-1),
            lambda: store.read_all(after=1 << 63),
            lambda: store.read_all(limit=-1),
            lambda: store.read_all(stream_prefix="\ud800"),
            lambda: store.read_all(types=["\ud800"]),
            lambda: store.read_stream("\ud800"),
            lambda: store.read_stream("model/n/m", after_version=-1),
            lambda: store.subscribe(-1),
        )
        for read in reads:
            try:
                await anext(read())
            except CallerError:
                continue
            raise AssertionError("a bad place was let through")


async def subscription_catches_up_and_continues(open_: Opener) -> None:
    """Existing events first, then new ones, each once and in order."""
    async with open_() as store:
        await store.append("model/n/m", [event() for _ in range(3)], ANY)
        events = store.subscribe(1)
        assert await _take(events, 2) == [2, 3]
        waiting = asyncio.create_task(_take(events, 3))
        await store.append("model/n/m", [event()], ANY)
        await store.append("model/n/o", [event(), event()], ANY)
        assert await waiting == [4, 5, 6]


async def subscriptions_see_the_same(open_: Opener) -> None:
    """Several, from several positions, during many appends."""
    async with open_() as store:
        tasks = [
            asyncio.create_task(_take(store.subscribe(after), 200 - after))
            for after in (0, 0, 50, 150)
        ]
        await asyncio.gather(
            *(store.append(f"model/n/{n}", [event()], ANY) for n in range(200))
        )
        for after, task in zip((0, 0, 50, 150), tasks, strict=True):
            assert await task == list(range(after + 1, 201))


async def subscription_waits_after_the_end(open_: Opener) -> None:
    """It may start at a position that the log has not reached yet."""
    async with open_() as store:
        waiting = asyncio.create_task(_take(store.subscribe(2), 1))
        await store.append("model/n/m", [event(), event()], ANY)
        await store.append("model/n/m", [event()], ANY)
        assert await waiting == [3]


async def subscription_ends_with_the_store(open_: Opener) -> None:
    """Closing the store ends it at any point."""
    async with open_() as store:
        await store.append("model/n/m", [event()], ANY)
        events = store.subscribe(0)
        assert await _take(events, 1) == [1]
        waiting = asyncio.create_task(_drain(events))
        await asyncio.sleep(0)
        await store.close()
        assert await waiting == 0


async def cancelled_subscription_affects_no_other(open_: Opener) -> None:
    """The store and other subscriptions continue."""
    async with open_() as store:
        cancelled = asyncio.create_task(_take(store.subscribe(0), 1))
        other = asyncio.create_task(_take(store.subscribe(0), 1))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.wait({cancelled})
        await store.append("model/n/m", [event()], ANY)
        assert await other == [1]


async def closed_store_refuses_everything(open_: Opener) -> None:
    """Closing twice is permitted; every other call is refused."""
    view = StoredView(name="v", version=1, position=0, hash="0" * 64, data=b"")
    async with open_() as store:
        await store.append("model/n/m", [event()], ANY)
        await store.close()
        await store.close()
        for attempt in (
            store.append("model/n/m", [event()], ANY),
            store.head(),
            store.stream_version("model/n/m"),
            store.load_view("v"),
            store.save_view(view),
            store.keep_view(view),
            store.kept_views("v"),
            store.load_kept_view("v", version=1, position=0),
            store.drop_views("v", version=1, positions=[0]),
            log_of(store),
            _drain(store.read_stored()),
            _drain(store.read_stream("model/n/m")),
        ):
            await refused(StoreClosedError, attempt)
        try:
            store.subscribe(0)
        except StoreClosedError:
            return
        raise AssertionError("a closed store can be subscribed to")


async def view_is_kept_and_replaced(open_: Opener) -> None:
    """The newest snapshot of each name, byte for byte."""
    data = bytes(range(256))
    view = StoredView(name="status", version=1, position=3, hash="a" * 64, data=data)
    newer = msgspec.structs.replace(view, version=1 << 62, position=7, data=b"")
    other = msgspec.structs.replace(view, name="history")
    async with open_() as store:
        assert await store.load_view("status") is None
        for saved in (view, other, newer):
            await store.save_view(saved)
            assert await store.load_view(saved.name) == saved
        assert await store.load_view("history") == other


async def views_are_kept_at_many_positions(open_: Opener) -> None:
    """Each is loaded byte for byte, replaced, and dropped separately."""
    data = bytes(range(256))
    view = StoredView(name="past", version=1, position=3, hash="a" * 64, data=data)
    later = msgspec.structs.replace(view, position=7, hash="b" * 64)
    newer_form = msgspec.structs.replace(view, version=2, data=b"")
    other = msgspec.structs.replace(view, name="other")
    async with open_() as store:
        assert list(await store.kept_views("past")) == []
        assert await store.load_kept_view("past", version=1, position=3) is None
        for kept in (later, view, newer_form, other):
            await store.keep_view(kept)
        assert list(await store.kept_views("past")) == [
            (1, 3, 256),
            (2, 3, 0),
            (1, 7, 256),
        ]
        for kept in (later, view, newer_form, other):
            assert kept == await store.load_kept_view(
                kept.name, version=kept.version, position=kept.position
            )
        replaced = msgspec.structs.replace(view, data=b"other")
        await store.keep_view(replaced)
        assert await store.load_kept_view("past", version=1, position=3) == replaced
        await store.drop_views("past", version=1, positions=[3, 5])
        assert list(await store.kept_views("past")) == [(2, 3, 0), (1, 7, 256)]
        assert list(await store.kept_views("other")) == [(1, 3, 256)]
        assert await store.load_view("past") is None  # the newest is stored separately


READ_CASES: tuple[Case, ...] = (
    stream_is_read_from_any_version,
    log_is_filtered,
    long_log_is_read_whole,
    stored_events_are_chained,
    bad_positions_are_the_callers_error,
    subscription_catches_up_and_continues,
    subscriptions_see_the_same,
    subscription_waits_after_the_end,
    subscription_ends_with_the_store,
    cancelled_subscription_affects_no_other,
    closed_store_refuses_everything,
    view_is_kept_and_replaced,
    views_are_kept_at_many_positions,
)
"""The cases about reading."""
