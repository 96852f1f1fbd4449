"""The contract of a log that outlives its store, and that several stores open."""

from __future__ import annotations

import asyncio

from herdbook.events.errors import (
    EventIdConflictError,
    StoreClosedError,
    WrongExpectedVersionError,
)
from herdbook.events.recorded import RecordedEvent
from herdbook.events.snapshots import StoredView
from herdbook.events.store import ANY, NO_STREAM
from herdbook.events.testing.base import (
    Case,
    Opener,
    assert_sound,
    event,
    log_of,
    refused,
)


async def reopened_log_is_the_same(open_: Opener) -> None:
    """Closing loses and changes nothing, and appending continues."""
    view = StoredView(name="v", version=1, position=2, hash="a" * 64, data=b"x")
    async with open_() as store:
        written = await store.append("model/n/m", [event("a"), event("b")], ANY)
        await store.save_view(view)
    async with open_() as store:
        assert await log_of(store) == list(written)
        assert await store.load_view("v") == view
        (third,) = await store.append("model/n/m", [event()], 2)
        assert (third.position, third.version) == (3, 3)
        await assert_sound(store)


async def closing_commits_what_was_accepted(open_: Opener) -> None:
    """Each running append is in the log, or was refused."""
    new = [event() for _ in range(50)]
    async with open_() as store:
        tasks = [asyncio.create_task(store.append("model/n/m", [e], ANY)) for e in new]
        await asyncio.sleep(0)
        await store.close()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
    kept = {a[0].event_id for a in answers if isinstance(a, tuple)}
    failed = [a for a in answers if isinstance(a, BaseException)]
    assert all(isinstance(a, StoreClosedError) for a in failed), failed
    async with open_() as store:
        assert {e.event_id for e in await log_of(store)} == kept


async def two_stores_make_one_log(open_: Opener) -> None:
    """Appends through both make one log, without gaps and losses."""
    async with open_() as one, open_() as two:
        for _ in range(10):
            await asyncio.gather(
                *(one.append(f"model/n/{n}", [event()], ANY) for n in range(5)),
                *(two.append(f"model/n/{n}", [event()], ANY) for n in range(5)),
            )
        log = await log_of(one)
        assert [e.position for e in log] == list(range(1, 101))
        assert log == await log_of(two)
        await assert_sound(two)


async def events_of_another_store_count(open_: Opener) -> None:
    """Versions and ids that another store has recorded count here."""
    async with open_() as one, open_() as two:
        new = event("a")
        first = await one.append("model/n/m", [new], NO_STREAM)
        assert await two.append("model/n/m", [new], NO_STREAM) == first
        attempt = two.append("model/n/m", [event()], NO_STREAM)
        await refused(WrongExpectedVersionError, attempt)
        await two.append("model/n/m", [event()], 1)
        (third,) = await one.append("model/n/m", [event()], 2)
        assert third.position == 3
        attempt = one.append("model/n/m", [event("b", event_id=new.event_id)], ANY)
        await refused(EventIdConflictError, attempt)


async def one_of_two_stores_wins(open_: Opener) -> None:
    """Of appends through both that expect the same version, one succeeds."""
    async with open_() as one, open_() as two:
        for version in range(10):
            answers = await asyncio.gather(
                one.append("model/n/m", [event()], version),
                two.append("model/n/m", [event()], version),
                return_exceptions=True,
            )
            lost = [a for a in answers if isinstance(a, WrongExpectedVersionError)]
            assert len(lost) == 1, answers
        await assert_sound(one)


async def subscription_gets_events_of_both(open_: Opener) -> None:
    """Events of another store arrive too, in order."""
    async with open_() as one, open_() as two:
        heard: list[RecordedEvent] = []

        async def listen() -> None:
            async for recorded in one.subscribe(0):
                heard.append(recorded)
                if len(heard) == 30:
                    return

        listening = asyncio.create_task(listen())
        for _ in range(10):
            await two.append("model/n/m", [event()], ANY)
            await one.append("model/n/m", [event(), event()], ANY)
        await asyncio.wait_for(listening, 30)
        assert heard == await log_of(two)


SHARED_CASES: tuple[Case, ...] = (
    reopened_log_is_the_same,
    closing_commits_what_was_accepted,
    two_stores_make_one_log,
    events_of_another_store_count,
    one_of_two_stores_wins,
    subscription_gets_events_of_both,
)
"""The cases about a log that several stores have open, or one after another."""
