"""The doctor: all checks of the log, the server and the models.

It works without a server, without a log, and with a log that cannot be opened. It never
creates a log and does not write to a log that has a problem. Otherwise, what it sees on
the server is recorded, as by every refresh.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from datetime import datetime
from importlib import metadata
from pathlib import Path
from platform import python_version

import msgspec

from herdbook.core.checks import archives
from herdbook.core.checks.database import check_database
from herdbook.core.checks.log import (
    check_instances,
    check_log,
    check_sqlite,
    failed,
)
from herdbook.core.clock import Clock, SystemClock
from herdbook.core.diagnosis import Diagnosis, Level, diagnosis
from herdbook.core.errors import HerdbookError, StoreError
from herdbook.core.fleet.fleet import Fleet
from herdbook.core.log.location import MEMORY, LogLocation
from herdbook.core.log.storage import Storage
from herdbook.core.manager import ModelManager
from herdbook.core.models.registry import ModelRegistry
from herdbook.core.operations.other_instances import INTERRUPTIONS
from herdbook.core.settings import ManagerSettings
from herdbook.events.facts import LoadInterrupted, ReloadInterrupted
from herdbook.events.findings import Finding
from herdbook.events.postgres.address import PostgresAddress
from herdbook.events.recorded import Cause, RecordedEvent
from herdbook.events.sqlite.log_file import log_file_path
from herdbook.events.streams import model_of
from herdbook.projections.sentences import describe

SHOWN_FINDINGS = 5
"""Findings about events that are shown; the others are counted."""

_INTERRUPTED = frozenset(fact.__name__ for fact in INTERRUPTIONS)
_LOADS_INTERRUPTED = (LoadInterrupted.__name__, ReloadInterrupted.__name__)


class DoctorOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of the doctor.

    Attributes:
        log: The log; None to check only the rest.
        ollama: Address of the server, in the format of ``OLLAMA_HOST``; by default
            ``OLLAMA_HOST``.
        node: Check only this node; None for all nodes of the log.
        actor: Recorded as who requested the refresh.
        catalogue: File of the user's catalogue, if any.
        refresh_timeout_s: Timeout of a refresh from the server, seconds.
    """

    log: LogLocation | None
    ollama: str | None = None
    node: str | None = None
    actor: str = "library:python"
    catalogue: Path | None = None
    refresh_timeout_s: float = 10.0


async def examine(
    options: DoctorOptions, *, clock: Clock | None = None
) -> tuple[Diagnosis, ...]:
    """Run all checks and return their results.

    Raises:
        CallerError: The server's address or the node's name is not valid.
    """
    clock = clock or SystemClock()
    in_database = isinstance(options.log, PostgresAddress)
    found = [
        _versions(in_database=in_database),
        *([] if in_database else [check_sqlite()]),
        check_catalogue(options.catalogue),
    ]
    if options.log is not None:
        of_log = await _check_log(options.log, clock.now())
        found += of_log
        if _is_sound(of_log):
            try:
                return (
                    *found,
                    *await _check_log_and_server(options, options.log, clock),
                )
            except StoreError as error:
                found.append(failed("log", error))
    async with _open(options, MEMORY, clock) as fleet:
        return (*found, *await _check_nodes(fleet))


def _is_sound(found: Sequence[Diagnosis]) -> bool:
    """Return whether the log exists and has no problem, so that it may be written."""
    exists = any(each.check == "log" and each.level is Level.OK for each in found)
    return exists and all(each.level is not Level.PROBLEM for each in found)


def _versions(*, in_database: bool) -> Diagnosis:
    driver = "psycopg" if in_database else "aiosqlite"
    names = ("herdbook", driver, "httpx", "msgspec", "structlog", "transitions")
    versions = [f"{name} {_version(name)}" for name in names]
    return diagnosis("versions", ", ".join([*versions, f"Python {python_version()}"]))


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:  # the driver is an extra
        return "not installed"


def check_catalogue(path: Path | None) -> Diagnosis:
    """Check the user's catalogue on top of the shipped one."""
    registry = ModelRegistry()
    if path is None:
        return diagnosis("catalogue", f"shipped catalogue: {len(registry)} models")
    try:
        registry = registry.with_catalogue(path)
    except HerdbookError as error:
        return failed("catalogue", error)
    return diagnosis("catalogue", f"{path} and the shipped one: {len(registry)} models")


async def _check_log(log: LogLocation, now: datetime) -> list[Diagnosis]:
    if isinstance(log, PostgresAddress):
        return await check_database(log, now)
    return await asyncio.to_thread(check_log, log, now)


async def _check_log_and_server(
    options: DoctorOptions, log: LogLocation, clock: Clock
) -> list[Diagnosis]:
    """Open the log and compare it with the server."""
    async with Storage.open(log, clock) as storage:
        before = (await storage.store.head()).position
        of_archives = await archives.diagnose(storage)
    async with _open(options, log, clock) as fleet:
        return [
            *of_archives,
            *([_check_instances(log)] if isinstance(log, Path) else []),
            *_events((await fleet.home.now()).findings),
            *[each async for each in _interrupted_work(fleet.home, before)],
            *await _check_nodes(fleet),
            *await _reconcilers(fleet),
        ]


async def _reconcilers(fleet: Fleet) -> list[Diagnosis]:
    """Report which process refreshes each node periodically."""
    found = []
    for name, holder in sorted((await fleet.reconcilers()).items()):
        where = f"instance {holder.instance}"
        if holder.process is not None:
            where = f"process {holder.process} on {holder.host}"
        one = diagnosis("refreshes", f"periodically, by {where}")
        found.append(
            msgspec.structs.replace(one, node=name) if fleet.is_several else one
        )
    return found


async def _check_nodes(fleet: Fleet) -> list[Diagnosis]:
    """Check the server and the models of each node, all at the same time."""
    if not fleet.is_several:
        return await fleet.home.doctor()
    names = fleet.all_names
    each = await asyncio.gather(*(_check_node(fleet, name) for name in names))
    return [
        msgspec.structs.replace(one, node=name)
        for name, found in zip(names, each, strict=True)
        for one in found
    ]


async def _check_node(fleet: Fleet, name: str) -> list[Diagnosis]:
    try:
        return await fleet.manager(name).doctor()
    except HerdbookError as error:
        return [failed("server", error)]


def _open(
    options: DoctorOptions, log: LogLocation | str, clock: Clock
) -> AbstractAsyncContextManager[Fleet]:
    return Fleet.open(
        log,
        ollama=options.ollama,
        node=options.node,
        actor=options.actor,
        settings=ManagerSettings(refresh_timeout_s=options.refresh_timeout_s),
        clock=clock,
    )


def _check_instances(log: Path) -> Diagnosis:
    """Count the other instances on the log: each has its own lock file."""
    return check_instances(len([*log_file_path(log, "-instances").glob("*.lock")]) - 1)


def _events(findings: Sequence[Finding]) -> Iterator[Diagnosis]:
    """Report events that are unreadable, illegal or in the wrong stream."""
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


async def _interrupted_work(
    manager: ModelManager, before: int
) -> AsyncIterator[Diagnosis]:
    """Yield operations that were interrupted by a crash, found on opening the log."""
    end = (await manager.now()).position
    if end <= before:
        return
    async with aclosing(manager.events(after=before)) as events:
        async for event in events:
            if event.type in _INTERRUPTED and event.cause is Cause.RECOVERY:
                yield _interrupted(event)
            if event.position >= end:
                return


def _interrupted(event: RecordedEvent) -> Diagnosis:
    key = model_of(event.stream)
    name = key.name if key else event.stream
    loads = event.type in _LOADS_INTERRUPTED
    return diagnosis(
        "instances",
        f"an instance ended during an operation on {name}: {describe(event)} (#"
        f"{event.position}, recorded just now)",
        "Load it again" if loads else "Pull it again to resume",
        level=Level.NOTICE,
    )
