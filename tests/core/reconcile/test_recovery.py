"""Work that a crash ended is recorded as interrupted; the server's state counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from support.manager_fixture import (
    SandboxServer,
    event_types,
    last_fact,
    pull_to_end,
    recorded_events,
    serve_sandbox,
)

from herdbook.core import Cause, ManagerSettings, ModelManager, ModelState
from herdbook.events import facts
from herdbook.events.facts import Fact
from herdbook.events.recorded import RecordedEvent
from herdbook.events.sqlite.instances import FileInstances

NAME = "llava:7b"
ABSENT = "smollm2:135m"
WAS = "UpdateInterrupted", "PullInterrupted", "LoadInterrupted"


@contextmanager
def instance(log: Path) -> Iterator[FileInstances]:
    """Be another instance at work on a log; its death is the end of the block."""
    with FileInstances(log.with_name(f"{log.name}-instances")) as instances:
        yield instances


async def begins(manager: ModelManager, name: str, *begun: Fact) -> None:
    """Record what another instance would have recorded."""
    for fact in begun:
        await manager._repository.record(name, [fact], cause=Cause.COMMAND)


@asynccontextmanager
async def crashed(
    log: Path, name: str, kind: type[Fact], *more: Fact
) -> AsyncIterator[SandboxServer]:
    """Leave a log whose last instance died at work on a model."""
    async with serve_sandbox() as server:
        async with server.open_manager(log) as manager:
            with instance(log) as other:
                await begins(manager, name, kind(instance=other.own), *more)
        yield server


async def ends(manager: ModelManager, name: str) -> list[RecordedEvent]:
    """Return what was recorded since a model's work began."""
    events = await recorded_events(manager, name)
    begun = [i for i, e in enumerate(events) if e.type.endswith("Started")]
    return events[begun[-1] + 1 :]


async def test_pull_of_a_dead_instance_is_interrupted(tmp_path: Path) -> None:
    progressed = facts.PullProgressed(completed_bytes=10, total_bytes=40)
    log = tmp_path / "herd.db"
    async with (
        crashed(log, ABSENT, facts.PullStarted, progressed) as server,
        server.open_manager(log) as manager,
    ):
        interrupted = await last_fact(manager, facts.PullInterrupted)

        assert isinstance(interrupted, facts.PullInterrupted)
        assert (interrupted.completed_bytes, interrupted.total_bytes) == (10, 40)
        assert (await manager.get_status(ABSENT)).state is ModelState.NOT_PRESENT


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
    async with crashed(log, name, kind) as server, server.open_manager(log) as manager:
        (end,) = await ends(manager, name)

        assert end.type == kind.__name__.replace("Started", "Interrupted")
        assert (end.cause, end.actor) == (Cause.RECOVERY, "reconciler")
        started = next(
            e.data for e in await recorded_events(manager, name) if type(e.data) is kind
        )
        assert vars_of(end.data)["instance"] == vars_of(started)["instance"]


def vars_of(fact: Fact) -> dict[str, object]:
    return {name: getattr(fact, name) for name in fact.__struct_fields__}


async def test_interrupted_pull_that_had_ended_is_found(tmp_path: Path) -> None:
    log = tmp_path / "herd.db"
    async with crashed(log, ABSENT, facts.PullStarted) as server:
        await server.pull(ABSENT)
        async with server.open_manager(log) as manager:
            events = await ends(manager, ABSENT)

            assert [e.type for e in events] == [
                "PullInterrupted",
                "ModelDiscovered",
                "CapabilitiesDetected",
            ]
            assert {e.cause for e in events} == {Cause.RECOVERY}
            assert await manager.is_available(ABSENT)


async def test_interrupted_load_that_had_ended_is_found_loaded(tmp_path: Path) -> None:
    log = tmp_path / "herd.db"
    async with crashed(log, NAME, facts.LoadStarted) as server:
        await server.load(NAME)
        async with server.open_manager(log) as manager:
            events = await ends(manager, NAME)

            assert [e.type for e in events] == ["LoadInterrupted", "ModelLoaded"]
            assert {e.cause for e in events} == {Cause.RECOVERY}


async def test_interrupted_update_that_had_ended_is_found(tmp_path: Path) -> None:
    log = tmp_path / "herd.db"
    async with crashed(log, NAME, facts.UpdateStarted) as server:
        await server.copy("plain", NAME)
        async with server.open_manager(log) as manager:
            events = await ends(manager, NAME)

            assert [e.type for e in events[:2]] == ["UpdateInterrupted", "ModelUpdated"]
            assert {e.cause for e in events} == {Cause.RECOVERY}


async def test_update_during_a_load_is_interrupted_with_it(tmp_path: Path) -> None:
    log = tmp_path / "herd.db"
    async with serve_sandbox() as server:
        async with server.open_manager(log) as manager:
            with instance(log) as other:
                both = facts.UpdateStarted, facts.LoadStarted
                await begins(
                    manager, NAME, *(kind(instance=other.own) for kind in both)
                )
        async with server.open_manager(log) as manager:
            types = [e.type for e in await ends(manager, NAME)]

            assert sorted(types) == ["LoadInterrupted", "UpdateInterrupted"]


async def test_work_of_a_living_instance_is_untouched(tmp_path: Path) -> None:
    log = tmp_path / "herd.db"
    async with serve_sandbox() as server, server.open_manager(log) as first:
        with instance(log) as other:
            await begins(first, NAME, facts.LoadStarted(instance=other.own))
            async with server.open_manager(log) as second:
                await second.refresh()

                assert (await second.get_status(NAME)).state is ModelState.LOADING
                assert (await event_types(second, NAME))[-1] == "LoadStarted"


async def test_next_refresh_of_a_living_instance_notices_the_death(
    tmp_path: Path,
) -> None:
    log = tmp_path / "herd.db"
    async with serve_sandbox() as server, server.open_manager(log) as manager:
        with instance(log) as other:
            await begins(manager, NAME, facts.LoadStarted(instance=other.own))

        await manager.refresh()

        assert (await event_types(manager, NAME))[-1] == "LoadInterrupted"


async def test_recovery_works_without_a_server(tmp_path: Path) -> None:
    log = tmp_path / "herd.db"
    async with crashed(log, NAME, facts.LoadStarted) as server:
        server.apply(server="killed")
        async with server.open_manager(log) as manager:
            assert (await event_types(manager, NAME))[-1] == "LoadInterrupted"
            assert (await manager.get_status(NAME)).stale_since is not None


async def test_interrupted_pull_can_be_pulled_again(tmp_path: Path) -> None:
    log = tmp_path / "herd.db"
    async with (
        crashed(log, ABSENT, facts.PullStarted) as server,
        server.open_manager(log) as manager,
    ):
        assert (await manager.ensure_available(ABSENT)).present


async def test_interrupted_pull_resumes_if_configured(
    tmp_path: Path,
) -> None:
    log, settings = tmp_path / "herd.db", ManagerSettings(resume_pulls=True)
    async with (
        crashed(log, ABSENT, facts.PullStarted) as server,
        server.open_manager(log, settings=settings) as manager,
    ):
        await server.wait_until(lambda: server.has_model(ABSENT))
        await manager.ensure_available(ABSENT)

        assert [e.type for e in await ends(manager, ABSENT)] == [
            "PullCompleted",
            "CapabilitiesDetected",
        ]
        assert server.request_count("/api/pull") == 1


async def test_resumed_pull_uses_the_options_of_the_interrupted_one(
    tmp_path: Path,
) -> None:
    log, settings = tmp_path / "herd.db", ManagerSettings(resume_pulls=True)
    name = "127.0.0.1:5055/library/plain:latest"
    async with serve_sandbox() as server:
        async with server.open_manager(log) as manager:
            with instance(log) as other:
                begun = facts.PullStarted(instance=other.own, insecure=True)
                await begins(manager, name, begun)
        async with server.open_manager(log, settings=settings) as manager:
            await server.wait_until(lambda: server.has_model(name))

            assert (await manager.ensure_available(name)).present


async def test_interrupted_load_does_not_resume(tmp_path: Path) -> None:
    log, settings = tmp_path / "herd.db", ManagerSettings(resume_pulls=True)
    async with (
        crashed(log, NAME, facts.LoadStarted) as server,
        server.open_manager(log, settings=settings),
    ):
        await server.clock.sleep(60)

        assert server.request_count("/api/generate") == 0


@pytest.mark.parametrize(
    ("name", "begun", "end"),
    [
        (ABSENT, facts.PullStarted, "PullInterrupted"),
        (NAME, facts.UpdateStarted, "UpdateInterrupted"),
        (NAME, facts.LoadStarted, "LoadInterrupted"),
    ],
)
async def test_own_abandoned_work_is_interrupted(
    name: str, begun: type[facts.PullStarted], end: str
) -> None:
    """So it is left where the log was full when the work ended."""
    async with serve_sandbox() as server, server.open_manager() as manager:
        await begins(manager, name, begun(instance=manager._storage.instances.own))

        await manager.refresh()

        assert [event.type for event in await ends(manager, name)] == [end]


async def test_own_running_work_is_not_interrupted(tmp_path: Path) -> None:
    async with (
        serve_sandbox() as server,
        server.open_manager(tmp_path / "herd.db") as manager,
    ):
        pulling = asyncio.create_task(pull_to_end(manager, ABSENT))
        while (await event_types(manager, ABSENT))[-1:] != ["PullStarted"]:
            await server.clock.sleep(0.05)

        await manager.refresh()

        assert await pulling
        assert (await event_types(manager, ABSENT))[-2:] == [
            "PullCompleted",
            "CapabilitiesDetected",
        ]
