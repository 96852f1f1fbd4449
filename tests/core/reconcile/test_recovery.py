"""What a crash left is recorded as interrupted, and the server says what is true."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from support.manager_fixture import Place, last_fact, pulled, recorded, served, told

from herdbook.core import Cause, ManagerSettings, ModelManager, ModelState
from herdbook.events import facts
from herdbook.events.facts import Fact
from herdbook.events.instances import FileInstances
from herdbook.events.recorded import RecordedEvent

NAME = "llava:7b"
ABSENT = "smollm2:135m"
WAS = "UpdateInterrupted", "PullInterrupted", "LoadInterrupted"


@contextmanager
def instance(log: Path) -> Iterator[FileInstances]:
    """Be another instance at work on a log; its death is the end of the block."""
    with FileInstances(log.with_name(f"{log.name}-instances")) as instances:
        yield instances


async def begins(herd: ModelManager, name: str, *begun: Fact) -> None:
    """Record what another instance would have recorded."""
    for fact in begun:
        await herd._repository.record(name, [fact], cause=Cause.COMMAND)


@asynccontextmanager
async def crashed(
    log: Path, name: str, kind: type[Fact], *more: Fact
) -> AsyncIterator[Place]:
    """Leave a log whose last instance died at work on a model."""
    async with served() as place:
        async with place.herd(log) as herd:
            with instance(log) as other:
                await begins(herd, name, kind(instance=other.own), *more)
        yield place


async def ends(herd: ModelManager, name: str) -> list[RecordedEvent]:
    """Return what was recorded since a model's work began."""
    events = await recorded(herd, name)
    begun = [i for i, e in enumerate(events) if e.type.endswith("Started")]
    return events[begun[-1] + 1 :]


async def test_pull_of_a_dead_instance_is_interrupted(tmp_path: Path) -> None:
    progressed = facts.PullProgressed(completed_bytes=10, total_bytes=40)
    log = tmp_path / "herd.db"
    async with (
        crashed(log, ABSENT, facts.PullStarted, progressed) as place,
        place.herd(log) as herd,
    ):
        interrupted = await last_fact(herd, facts.PullInterrupted)

        assert isinstance(interrupted, facts.PullInterrupted)
        assert (interrupted.completed_bytes, interrupted.total_bytes) == (10, 40)
        assert (await herd.get_status(ABSENT)).state is ModelState.NOT_PRESENT


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (ABSENT, facts.PullStarted),
        (NAME, facts.UpdateStarted),
        (NAME, facts.LoadStarted),
    ],
)
async def test_interruption_is_recorded_with_cause_and_instance(
    name: str, kind: type[Fact], tmp_path: Path
) -> None:
    log = tmp_path / "herd.db"
    async with crashed(log, name, kind) as place, place.herd(log) as herd:
        (end,) = await ends(herd, name)

        assert end.type == kind.__name__.replace("Started", "Interrupted")
        assert (end.cause, end.actor) == (Cause.RECOVERY, "reconciler")
        started = next(
            e.data for e in await recorded(herd, name) if type(e.data) is kind
        )
        assert vars_of(end.data)["instance"] == vars_of(started)["instance"]


def vars_of(fact: Fact) -> dict[str, object]:
    return {name: getattr(fact, name) for name in fact.__struct_fields__}


async def test_interrupted_pull_that_had_ended_is_found(tmp_path: Path) -> None:
    log = tmp_path / "herd.db"
    async with crashed(log, ABSENT, facts.PullStarted) as place:
        await place.pulls(ABSENT)
        async with place.herd(log) as herd:
            events = await ends(herd, ABSENT)

            assert [e.type for e in events] == [
                "PullInterrupted",
                "ModelDiscovered",
                "CapabilitiesDetected",
            ]
            assert {e.cause for e in events} == {Cause.RECOVERY}
            assert await herd.is_available(ABSENT)


async def test_interrupted_load_that_had_ended_is_found_loaded(tmp_path: Path) -> None:
    log = tmp_path / "herd.db"
    async with crashed(log, NAME, facts.LoadStarted) as place:
        await place.loads(NAME)
        async with place.herd(log) as herd:
            events = await ends(herd, NAME)

            assert [e.type for e in events] == ["LoadInterrupted", "ModelLoaded"]
            assert {e.cause for e in events} == {Cause.RECOVERY}


async def test_interrupted_update_that_had_ended_is_found(tmp_path: Path) -> None:
    log = tmp_path / "herd.db"
    async with crashed(log, NAME, facts.UpdateStarted) as place:
        await place.copies("plain", NAME)
        async with place.herd(log) as herd:
            events = await ends(herd, NAME)

            assert [e.type for e in events[:2]] == ["UpdateInterrupted", "ModelUpdated"]
            assert {e.cause for e in events} == {Cause.RECOVERY}


async def test_update_during_a_load_is_interrupted_with_it(tmp_path: Path) -> None:
    log = tmp_path / "herd.db"
    async with served() as place:
        async with place.herd(log) as herd:
            with instance(log) as other:
                both = facts.UpdateStarted, facts.LoadStarted
                await begins(herd, NAME, *(kind(instance=other.own) for kind in both))
        async with place.herd(log) as herd:
            types = [e.type for e in await ends(herd, NAME)]

            assert sorted(types) == ["LoadInterrupted", "UpdateInterrupted"]


async def test_work_of_a_living_instance_is_untouched(tmp_path: Path) -> None:
    log = tmp_path / "herd.db"
    async with served() as place, place.herd(log) as first:
        with instance(log) as other:
            await begins(first, NAME, facts.LoadStarted(instance=other.own))
            async with place.herd(log) as second:
                await second.refresh()

                assert (await second.get_status(NAME)).state is ModelState.LOADING
                assert (await told(second, NAME))[-1] == "LoadStarted"


async def test_death_is_noticed_by_the_next_look_of_the_living(tmp_path: Path) -> None:
    log = tmp_path / "herd.db"
    async with served() as place, place.herd(log) as herd:
        with instance(log) as other:
            await begins(herd, NAME, facts.LoadStarted(instance=other.own))

        await herd.refresh()

        assert (await told(herd, NAME))[-1] == "LoadInterrupted"


async def test_recovery_needs_no_server(tmp_path: Path) -> None:
    log = tmp_path / "herd.db"
    async with crashed(log, NAME, facts.LoadStarted) as place:
        place.did(server="killed")
        async with place.herd(log) as herd:
            assert (await told(herd, NAME))[-1] == "LoadInterrupted"
            assert (await herd.get_status(NAME)).stale_since is not None


async def test_interrupted_pull_can_be_pulled_again(tmp_path: Path) -> None:
    log = tmp_path / "herd.db"
    async with (
        crashed(log, ABSENT, facts.PullStarted) as place,
        place.herd(log) as herd,
    ):
        assert (await herd.ensure_available(ABSENT)).present


async def test_interrupted_pull_goes_on_by_itself_where_that_is_set(
    tmp_path: Path,
) -> None:
    log, settings = tmp_path / "herd.db", ManagerSettings(resume_pulls=True)
    async with (
        crashed(log, ABSENT, facts.PullStarted) as place,
        place.herd(log, settings=settings) as herd,
    ):
        await place.until(lambda: place.has(ABSENT))
        await herd.ensure_available(ABSENT)

        assert [e.type for e in await ends(herd, ABSENT)] == [
            "PullCompleted",
            "CapabilitiesDetected",
        ]
        assert place.asked("/api/pull") == 1


async def test_resumed_pull_asks_as_the_interrupted_one_did(tmp_path: Path) -> None:
    log, settings = tmp_path / "herd.db", ManagerSettings(resume_pulls=True)
    name = "127.0.0.1:5055/library/plain:latest"
    async with served() as place:
        async with place.herd(log) as herd:
            with instance(log) as other:
                begun = facts.PullStarted(instance=other.own, insecure=True)
                await begins(herd, name, begun)
        async with place.herd(log, settings=settings) as herd:
            await place.until(lambda: place.has(name))

            assert (await herd.ensure_available(name)).present


async def test_interrupted_load_does_not_go_on_by_itself(tmp_path: Path) -> None:
    log, settings = tmp_path / "herd.db", ManagerSettings(resume_pulls=True)
    async with (
        crashed(log, NAME, facts.LoadStarted) as place,
        place.herd(log, settings=settings),
    ):
        await place.clock.sleep(60)

        assert place.asked("/api/generate") == 0


@pytest.mark.parametrize(
    ("name", "begun", "end"),
    [
        (ABSENT, facts.PullStarted, "PullInterrupted"),
        (NAME, facts.UpdateStarted, "UpdateInterrupted"),
        (NAME, facts.LoadStarted, "LoadInterrupted"),
    ],
)
async def test_own_work_that_nobody_does_any_more_is_interrupted(
    name: str, begun: type[facts.PullStarted], end: str
) -> None:
    """So it is left where the log was full when the work ended."""
    async with served() as place, place.herd() as herd:
        await begins(herd, name, begun(instance=herd._storage.instances.own))

        await herd.refresh()

        assert [event.type for event in await ends(herd, name)] == [end]


async def test_own_work_under_way_is_left_alone(tmp_path: Path) -> None:
    async with served() as place, place.herd(tmp_path / "herd.db") as herd:
        pulling = asyncio.create_task(pulled(herd, ABSENT))
        while (await told(herd, ABSENT))[-1:] != ["PullStarted"]:
            await place.clock.sleep(0.05)

        await herd.refresh()

        assert await pulling
        assert (await told(herd, ABSENT))[-2:] == [
            "PullCompleted",
            "CapabilitiesDetected",
        ]
