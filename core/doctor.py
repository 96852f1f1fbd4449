"""The doctor: every check there is, of the log, the server and the models.

It works where nothing else does: without a server, without a log, and with a log that
cannot be opened. It makes no log, and writes to none that has a problem; else what it
sees on the server is recorded, as by everything that reads.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from importlib import metadata
from pathlib import Path
from platform import python_version

import msgspec

from herdbook.core.checks.log import check_log, check_sqlite, failed
from herdbook.core.clock import Clock, SystemClock
from herdbook.core.diagnosis import Diagnosis, Level, diagnosis
from herdbook.core.errors import HerdbookError, StoreError
from herdbook.core.manager import ModelManager
from herdbook.core.models.registry import ModelRegistry
from herdbook.core.settings import ManagerSettings
from herdbook.core.storage import MEMORY, Storage
from herdbook.events.facts import LoadInterrupted, PullInterrupted, UpdateInterrupted
from herdbook.events.findings import Finding
from herdbook.events.recorded import Cause, RecordedEvent
from herdbook.events.sqlite.log_file import log_file_path
from herdbook.events.streams import model_of
from herdbook.projections.sentences import describe

SHOWN_FINDINGS = 5
"""Findings about events that are shown one by one; more are counted."""

_INTERRUPTED = frozenset(
    fact.__name__ for fact in (LoadInterrupted, PullInterrupted, UpdateInterrupted)
)


class DoctorOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the doctor is to look at.

    Attributes:
        log: The log's file.
        ollama: The server, as ``OLLAMA_HOST`` takes it; by default that.
        node: Our name for the server.
        actor: Who asks.
        catalogue: The user's own catalogue, if there is one.
        refresh_timeout_s: Seconds that the server may take to answer.
    """

    log: Path
    ollama: str | None = None
    node: str = "local"
    actor: str = "library:python"
    catalogue: Path | None = None
    refresh_timeout_s: float = 10.0


async def examine(
    options: DoctorOptions, *, clock: Clock | None = None
) -> tuple[Diagnosis, ...]:
    """Run every check, and return what each found out.

    Raises:
        CallerError: The server's address or the node's name is none.
    """
    clock = clock or SystemClock()
    found = [_versions(), check_sqlite(), check_catalogue(options.catalogue)]
    of_log = await asyncio.to_thread(check_log, options.log, clock.now())
    found += of_log
    if _is_sound(of_log):
        try:
            return (*found, *await _herd(options, clock))
        except StoreError as error:
            found.append(failed("log", error))
    async with _open(options, MEMORY, clock) as herd:
        return (*found, *await herd.doctor())


def _is_sound(found: Sequence[Diagnosis]) -> bool:
    """Return whether there is a log, and nothing wrong: else nothing is recorded."""
    there = any(each.check == "log" and each.level is Level.OK for each in found)
    return there and all(each.level is not Level.PROBLEM for each in found)


def _versions() -> Diagnosis:
    names = ("herdbook", "aiosqlite", "httpx", "msgspec", "structlog", "transitions")
    told = [f"{name} {metadata.version(name)}" for name in names]
    return diagnosis("versions", ", ".join([*told, f"Python {python_version()}"]))


def check_catalogue(path: Path | None) -> Diagnosis:
    """Check the user's own catalogue, laid on the one that is shipped."""
    registry = ModelRegistry()
    if path is None:
        return diagnosis("catalogue", f"the shipped one alone: {len(registry)} models")
    try:
        registry = registry.with_catalogue(path)
    except HerdbookError as error:
        return failed("catalogue", error)
    return diagnosis("catalogue", f"{path} on the shipped one: {len(registry)} models")


async def _herd(options: DoctorOptions, clock: Clock) -> list[Diagnosis]:
    """Open the log, and check what it says against the server."""
    async with Storage.open(options.log, clock) as storage:
        before = (await storage.store.head()).position
    async with _open(options, options.log, clock) as herd:
        return [
            _alive(options.log),
            *_events((await herd.now()).findings),
            *[each async for each in _left_by_the_dead(herd, before)],
            *await herd.doctor(),
        ]


def _open(
    options: DoctorOptions, log: Path | str, clock: Clock
) -> AbstractAsyncContextManager[ModelManager]:
    return ModelManager.open(
        log,
        ollama=options.ollama,
        node=options.node,
        actor=options.actor,
        settings=ManagerSettings(refresh_timeout_s=options.refresh_timeout_s),
        clock=clock,
    )


def _alive(log: Path) -> Diagnosis:
    """Count who else is at work on the log: each holds a lock file of its own."""
    others = len([*log_file_path(log, "-instances").glob("*.lock")]) - 1
    if not others:
        return diagnosis("instances", "nobody else is at work on the log")
    return diagnosis("instances", f"{others} more at work on the log")


def _events(findings: Sequence[Finding]) -> Iterator[Diagnosis]:
    """Show the events that cannot be read, are not legal or are in a wrong stream."""
    if not findings:
        yield diagnosis("events", "all readable and legal")
    for finding in findings[:SHOWN_FINDINGS]:
        yield diagnosis(
            "events",
            f"#{finding.position} {finding.message}",
            f"{finding.remedy}. To show the event, run: herdbook log --after "
            f"{finding.position - 1} --limit 1",
            level=Level.NOTICE,
        )
    if (more := len(findings) - SHOWN_FINDINGS) > 0:
        yield diagnosis(
            "events",
            f"{more} more findings",
            "To list them, run: herdbook verify",
            level=Level.NOTICE,
        )


async def _left_by_the_dead(
    herd: ModelManager, before: int
) -> AsyncIterator[Diagnosis]:
    """Yield what an instance was at work on when it died, found at the opening."""
    end = (await herd.now()).position
    if end <= before:
        return
    async with aclosing(herd.events(after=before)) as events:
        async for event in events:
            if event.type in _INTERRUPTED and event.cause is Cause.RECOVERY:
                yield _interrupted(event)
            if event.position >= end:
                return


def _interrupted(event: RecordedEvent) -> Diagnosis:
    key = model_of(event.stream)
    name = key.name if key else event.stream
    verb = "load" if event.type == LoadInterrupted.__name__ else "pull"
    return diagnosis(
        "instances",
        f"an instance that is gone left {name} at work; {describe(event)} (#"
        f"{event.position}, recorded just now)",
        f"To go on: herdbook {verb} {name}",
        level=Level.NOTICE,
    )
