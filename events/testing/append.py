"""The contract of appending: what is recorded, refused and returned."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta, timezone
from typing import Any

import msgspec

from herdbook.events.errors import (
    CallerError,
    ConflictError,
    EventIdConflictError,
    LeaseLostError,
    WrongExpectedVersionError,
)
from herdbook.events.facts import Fact, PullCompleted, Runner, RunnerChanged
from herdbook.events.instances import Fence
from herdbook.events.recorded import Cause, NewEvent
from herdbook.events.store import ANY, EXISTS, NO_STREAM, Expected
from herdbook.events.testing.base import (
    OCCURRED_AT,
    Case,
    Opener,
    assert_sound,
    event,
    fact,
    log_of,
    refused,
)


async def append_returns_what_reading_returns(open_: Opener) -> None:
    """An append returns the recorded events, as reading does."""
    async with open_() as store:
        new = [event("a", correlation_id="c", causation_id="d"), event("b")]
        answer = await store.append("model/n/m", new, NO_STREAM)
        assert list(answer) == await log_of(store)
        assert [e.event_id for e in answer] == [e.event_id for e in new]
        assert [e.data for e in answer] == [e.fact for e in new]


async def positions_and_versions_have_no_gaps(open_: Opener) -> None:
    """Positions count in the log, versions in each stream."""
    async with open_() as store:
        for stream in ("model/n/a", "model/n/b", "model/n/a"):
            await store.append(stream, [event(), event()], ANY)
        log = await log_of(store)
        assert [e.position for e in log] == [1, 2, 3, 4, 5, 6]
        assert [e.version for e in log] == [1, 2, 1, 2, 3, 4]
        assert await store.stream_version("model/n/a") == 4
        assert await store.stream_version("model/n/none") == 0


async def append_under_a_lost_lease_is_refused(open_: Opener) -> None:
    """An append whose lease is not held is refused, and no other append with it."""
    async with open_() as store:
        fence = Fence("node/n", "an instance", lambda: False)
        new = event()
        outcomes = await asyncio.gather(
            store.append("model/n/a", [new], NO_STREAM, fence=fence),
            store.append("model/n/b", [event()], NO_STREAM),
            return_exceptions=True,
        )
        assert isinstance(outcomes[0], LeaseLostError)
        assert [e.stream for e in await log_of(store)] == ["model/n/b"]
        first = await store.append("model/n/a", [new], NO_STREAM)
        again = await store.append("model/n/a", [new], NO_STREAM, fence=fence)
        assert again == first  # it was recorded while somebody could


async def head_is_the_last_event(open_: Opener) -> None:
    """The head has position and hash of the newest event, and the chain is intact."""
    async with open_() as store:
        assert (await store.head()) == (0, "0" * 64)
        (last,) = await store.append("model/n/m", [event()], ANY)
        assert (await store.head()) == (last.position, last.hash)
        await assert_sound(store)


async def expected_version_is_required(open_: Opener) -> None:
    """Only the right expected version is accepted; a refusal has the actual one."""
    holds: tuple[tuple[int | Expected, bool, bool], ...] = (
        # expected, of a stream without events, of one with two
        (0, True, False),
        (1, False, False),
        (2, False, True),
        (3, False, False),
        (NO_STREAM, True, False),
        (EXISTS, False, True),
        (ANY, True, True),
    )
    async with open_() as store:
        for number, (expected, on_none, on_two) in enumerate(holds):
            none, two = f"model/n/none{number}", f"model/n/two{number}"
            await store.append(two, [event(), event()], NO_STREAM)
            for stream, is_held in ((none, on_none), (two, on_two)):
                attempt = store.append(stream, [event()], expected)
                if is_held:
                    await attempt
                else:
                    error = await refused(WrongExpectedVersionError, attempt)
                    assert error.actual == (2 if stream == two else 0)
                    assert error.stream == stream


async def refused_append_records_nothing(open_: Opener) -> None:
    """All events of an append are recorded, or none."""
    async with open_() as store:
        (kept,) = await store.append("model/n/m", [event()], ANY)
        taken = event("other", event_id=kept.event_id)
        new = [event(), taken, event()]
        await refused(EventIdConflictError, store.append("model/n/m", new, ANY))
        new = [event(), event()]
        await refused(ConflictError, store.append("model/n/m", new, NO_STREAM))
        assert await log_of(store) == [kept]


async def same_append_is_recorded_once(open_: Opener) -> None:
    """A repeated append returns the recorded events, for any expected version."""
    async with open_() as store:
        new = [event("a"), event("b")]
        first = await store.append("model/n/m", new, NO_STREAM)
        await store.append("model/n/m", [event("c")], ANY)
        for expected in (NO_STREAM, ANY, EXISTS, 17):
            assert await store.append("model/n/m", new, expected) == first
        assert len(await log_of(store)) == 3
        await assert_sound(store)


async def same_concurrent_append_is_recorded_once(open_: Opener) -> None:
    """This also holds for concurrent appends."""
    async with open_() as store:
        new = [event("a"), event("b")]
        attempts = (store.append("model/n/m", new, ANY) for _ in range(20))
        answers = await asyncio.gather(*attempts)
        assert answers == [answers[0]] * 20
        assert len(await log_of(store)) == 2


async def event_id_with_other_content_conflicts(open_: Opener) -> None:
    """All fields from the caller count as content, the stream too."""
    async with open_() as store:
        new = event("a")
        await store.append("model/n/m", [new], ANY)
        others: tuple[dict[str, Any], ...] = (
            {"fact": fact("b")},
            {"occurred_at": OCCURRED_AT + timedelta(microseconds=1)},
            {"actor": "cli:else"},
            {"cause": Cause.OBSERVED},
            {"correlation_id": "c"},
            {"causation_id": "c"},
        )
        for other in others:
            changed = msgspec.structs.replace(new, **other)
            attempt = store.append("model/n/m", [changed], ANY)
            assert (await refused(EventIdConflictError, attempt)).position == 1
        await refused(EventIdConflictError, store.append("model/n/o", [new], ANY))
        assert (await store.head()).position == 1


async def partly_recorded_append_conflicts(open_: Opener) -> None:
    """An append that is only partly recorded is not the same append."""
    async with open_() as store:
        old, new = event("a"), event("b")
        await store.append("model/n/m", [old], ANY)
        for both in ([old, new], [new, old]):
            attempt = store.append("model/n/m", both, ANY)
            error = await refused(EventIdConflictError, attempt)
            assert (error.event_id, error.position) == (old.event_id, 1)
        assert len(await log_of(store)) == 1


async def concurrent_appends_are_recorded_without_gaps(open_: Opener) -> None:
    """Each of many concurrent appends is complete and contiguous."""
    async with open_() as store:
        answers = await asyncio.gather(
            *(
                store.append(f"model/n/{n % 7}", [event(), event(), event()], ANY)
                for n in range(100)
            )
        )
        log = await log_of(store)
        assert [e.position for e in log] == list(range(1, 301))
        for answer in answers:
            begin = answer[0].position
            assert [e.position for e in answer] == [begin, begin + 1, begin + 2]
            assert list(answer) == log[begin - 1 : begin + 2]
        await assert_sound(store)


async def one_of_concurrent_appends_wins(open_: Opener) -> None:
    """Of concurrent appends that expect the same version, one succeeds."""
    async with open_() as store:
        answers = await asyncio.gather(
            *(store.append("model/n/m", [event()], 0) for _ in range(50)),
            return_exceptions=True,
        )
        assert sum(isinstance(a, WrongExpectedVersionError) for a in answers) == 49
        assert (await store.head()).position == 1


async def conflict_fails_only_its_caller(open_: Opener) -> None:
    """Concurrent appends without a conflict are recorded."""
    async with open_() as store:
        (taken,) = await store.append("model/n/m", [event("a")], ANY)
        answers = await asyncio.gather(
            *(store.append(f"model/n/{n}", [event()], 0) for n in range(10)),
            store.append("model/n/m", [event("b", event_id=taken.event_id)], ANY),
            store.append("model/n/m", [event()], 5),
            *(store.append(f"model/n/x{n}", [event()], 0) for n in range(10)),
            return_exceptions=True,
        )
        failed = [type(a) for a in answers if isinstance(a, BaseException)]
        assert failed == [EventIdConflictError, WrongExpectedVersionError]
        assert (await store.head()).position == 21
        await assert_sound(store)


TEXTS = (
    "",
    "\"quoted\" 'single' `back`",
    '\\ \\\\ \\n \\u0000 \\"',
    "\0\x01\x1f\x7f\t\r\n\b\f",
    "\u2028\u2029\ufeff\ufffd\uffff",
    "Ünïcödé 漢字 👩‍🚀 \U0010ffff",
    "null",
    "{}[],:%_?;--",
    "x" * 100_000,
)
"""Texts that an implementation could confuse with something else."""


async def text_is_unchanged(open_: Opener) -> None:
    """Any text is the same after decoding, and is stored in canonical form."""
    async with open_() as store:
        new = [event(text) for text in TEXTS]
        await store.append("model/n/ü 🚀'\"\\%_", new, NO_STREAM)
        assert [e.data for e in await log_of(store)] == [e.fact for e in new]
        encode = msgspec.json.Encoder(order="sorted").encode
        stored = [e.data async for e in store.read_stored()]
        assert [data.encode() for data in stored] == [encode(e.fact) for e in new]
        await assert_sound(store)


class _Foreign(Fact, frozen=True, kw_only=True):
    """A fact that is not in the table of event types."""


class _WrongFact(Fact, frozen=True, kw_only=True):
    """A fact with the name of another event type."""


_WrongFact.__name__ = "ModelVanished"


def _bad_events() -> Sequence[NewEvent]:
    number: Any = "seven"
    cause: Any = "whim"
    runner: Any = Runner(name="m", digest="d", size_bytes=number)
    return (
        event(fact=_Foreign()),
        event(fact=_WrongFact()),
        event("\ud800"),
        event("x" * (1 << 20)),
        event(fact=PullCompleted(digest="d", size_bytes=1, duration_s=float("nan"))),
        event(fact=PullCompleted(digest="d", size_bytes=1, duration_s=float("inf"))),
        event(fact=PullCompleted(digest="d", size_bytes=number)),
        event(fact=RunnerChanged(runner=runner)),
        event(cause=cause),
        event(actor=""),
        event(actor="a\nb"),
        event(actor="a" * 201),
        event(event_id=""),
        event(event_id="\ud800"),
        event(event_id="i" * 65),
        event(correlation_id=""),
        event(causation_id="\0"),
        event(occurred_at=OCCURRED_AT.replace(tzinfo=None)),
        event(occurred_at=OCCURRED_AT.astimezone(timezone(timedelta(hours=1)))),
    )


async def bad_input_is_the_callers_error(open_: Opener) -> None:
    """Data that cannot be recorded is refused as a whole."""
    async with open_() as store:
        for bad in _bad_events():
            await refused(CallerError, store.append("model/n/m", [event(), bad], ANY))
        for stream in ("", "a\nb", "\ud800", "s" * 513):
            await refused(CallerError, store.append(stream, [event()], ANY))
        twice = event()
        await refused(CallerError, store.append("model/n/m", [], ANY))
        await refused(CallerError, store.append("model/n/m", [twice, twice], ANY))
        await refused(CallerError, store.append("model/n/m", [event()], -1))
        assert (await store.head()).position == 0


async def cancelled_append_happened_or_not(open_: Opener) -> None:
    """An append that is cancelled at any await is complete or absent."""
    async with open_() as store:
        for turns in range(100):
            new = [event(), event()]
            stream = f"model/n/{turns}"
            task = asyncio.create_task(store.append(stream, new, NO_STREAM))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})
            decided = await store.stream_version(stream)
            assert decided in {0, 2}
            await store.append("model/n/other", [event()], ANY)
            assert await store.stream_version(stream) == decided
            answer = await store.append(stream, new, NO_STREAM)
            assert [e.version for e in answer] == [1, 2]
        await assert_sound(store)


APPEND_CASES: tuple[Case, ...] = (
    append_returns_what_reading_returns,
    positions_and_versions_have_no_gaps,
    append_under_a_lost_lease_is_refused,
    head_is_the_last_event,
    expected_version_is_required,
    refused_append_records_nothing,
    same_append_is_recorded_once,
    same_concurrent_append_is_recorded_once,
    event_id_with_other_content_conflicts,
    partly_recorded_append_conflicts,
    concurrent_appends_are_recorded_without_gaps,
    one_of_concurrent_appends_wins,
    conflict_fails_only_its_caller,
    text_is_unchanged,
    bad_input_is_the_callers_error,
    cancelled_append_happened_or_not,
)
"""The cases about appending."""
