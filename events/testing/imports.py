"""The cases about events that a store takes unchanged from another log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol, cast

import msgspec

from herdbook.events.errors import CallerError, ConflictError
from herdbook.events.memory import MemoryEventStore
from herdbook.events.recorded import StoredEvent, canonical_bytes, chained_hash
from herdbook.events.store import Head, ImportingStore
from herdbook.events.testing.base import (
    Case,
    Opener,
    Store,
    assert_sound,
    event,
    refused,
)


class ImportingLog(Store, ImportingStore, Protocol):
    """What the cases need of a store."""


@asynccontextmanager
async def _opened(open_: Opener) -> AsyncIterator[ImportingLog]:
    async with open_() as store:
        assert isinstance(store, ImportingStore), "the store cannot import"
        yield cast("ImportingLog", store)


async def _recorded(notes: str) -> list[StoredEvent]:
    """Return the events of another log, one per letter, in two streams."""
    async with MemoryEventStore() as other:
        for number, note in enumerate(notes):
            stream = f"model/local/m{number % 2}:latest"
            await other.append(stream, [event(note)], number // 2)
        return await _stored(other)


async def _stored(store: Store) -> list[StoredEvent]:
    return [event async for event in store.read_stored()]


def _chained(previous: str, changed: StoredEvent) -> StoredEvent:
    """Return an event with the right hash for its content."""
    hash_ = chained_hash(previous, canonical_bytes(changed))
    return msgspec.structs.replace(changed, hash=hash_)


async def events_of_another_log_stay_as_they_are(open_: Opener) -> None:
    """Imported events are the same in every column, and appends follow them."""
    theirs = await _recorded("abcde")
    async with _opened(open_) as store:
        await store.append_stored(theirs[:2], after=Head())
        await store.append_stored(theirs[2:], after=Head(2, theirs[1].hash))
        assert await _stored(store) == theirs
        assert await store.head() == Head(5, theirs[-1].hash)
        assert await store.stream_version("model/local/m0:latest") == 3
        await store.append("model/local/m0:latest", [event("f")], 3)
        assert (await store.head()).position == 6
        await assert_sound(store)


async def imported_data_need_not_be_readable(open_: Opener) -> None:
    """Data that no version can decode are kept byte for byte."""
    (first,) = await _recorded("a")
    odd = _chained(Head().hash, msgspec.structs.replace(first, data='{"a" : [1.0}'))
    async with _opened(open_) as store:
        await store.append_stored([odd], after=Head())
        assert await _stored(store) == [odd]


async def import_needs_the_expected_end(open_: Opener) -> None:
    """An import that does not continue the log changes nothing."""
    theirs = await _recorded("abc")
    async with _opened(open_) as store:
        await store.append_stored(theirs[:2], after=Head())
        await refused(ConflictError, store.append_stored(theirs[:2], after=Head()))
        await refused(CallerError, store.append_stored([], after=Head()))
        wrong = msgspec.structs.replace(theirs[2], actor="library:mallory")
        end = Head(2, theirs[1].hash)
        await refused(CallerError, store.append_stored([wrong], after=end))
        elsewhere = Head(2, "f" * 64)
        other = _chained(elsewhere.hash, theirs[2])
        await refused(ConflictError, store.append_stored([other], after=elsewhere))
        assert await _stored(store) == theirs[:2]
        await store.append_stored(theirs[2:], after=end)


async def import_never_repeats_an_id_or_a_version(open_: Opener) -> None:
    """Events with a taken id or version are refused, all of their batch."""
    theirs = await _recorded("abc")
    end = Head(2, theirs[1].hash)
    async with _opened(open_) as store:
        await store.append_stored(theirs[:2], after=Head())
        for change in ({"event_id": theirs[0].event_id}, {"version": 9}):
            bad = _chained(end.hash, msgspec.structs.replace(theirs[2], **change))
            await refused(ConflictError, store.append_stored([bad], after=end))
        assert await _stored(store) == theirs[:2]
        await store.append_stored(theirs[2:], after=end)
        assert await _stored(store) == theirs


IMPORT_CASES: tuple[Case, ...] = (
    events_of_another_log_stay_as_they_are,
    imported_data_need_not_be_readable,
    import_needs_the_expected_end,
    import_never_repeats_an_id_or_a_version,
)
"""The cases about imports."""
