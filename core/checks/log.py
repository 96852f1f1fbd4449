"""Checks of the log's file and its file system; nothing is written.

Each check returns a result, also if all is well or if it cannot decide. A missing log
is not created.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

from herdbook.core.diagnosis import Diagnosis, Level, diagnosis
from herdbook.core.errors import HerdbookError, StoreError, StoreUnavailableError
from herdbook.core.log.storage import ACCEPT_LOSS
from herdbook.events.sqlite.condition import Condition, examine
from herdbook.events.sqlite.log_file import log_file_path
from herdbook.events.sqlite.read_only import is_read_only
from herdbook.events.store import Head
from herdbook.projections.sentences import bytes_text, counted, duration_text

FIRST_SQLITE_WITHOUT_RESET_BUG = (3, 51, 3)
"""Versions 3.7.0 to 3.51.2 have the WAL-reset bug (sqlite.org/wal.html, 2026-03)."""

LITTLE_DISK = 1_000_000_000
"""Free bytes below which the log's disk is called nearly full."""

NO_DISK = 100_000_000
"""Free bytes below which it is called full: a checkpoint may need that at once."""

LARGE_WAL = 64_000_000
"""Bytes of the write-ahead log beyond which something must prevent the checkpoint,
which SQLite makes at 4 MB (1,000 pages) by default."""

CLOCK_TOLERANCE = timedelta(seconds=5)
"""How far ahead the clock of another process on the same log may be."""

MOUNTS = Path("/proc/mounts")
"""Linux's list of mounted file systems."""

_NETWORK = re.compile(
    r"9p|afs|beegfs|ceph|cifs|fuse\.(sshfs|s3fs|glusterfs|rclone)|glusterfs|gpfs"
    r"|lustre|ncpfs|nfs\d?|smb\w*|vboxsf|virtiofs"
)


def check_sqlite(version: str = sqlite3.sqlite_version) -> Diagnosis:
    """Name versions of SQLite that can damage a log with several writers.

    A notice: most systems have such a version, and nobody can change it at once.
    """
    if tuple(map(int, version.split("."))) >= FIRST_SQLITE_WITHOUT_RESET_BUG:
        return diagnosis("sqlite", f"SQLite {version}")
    return diagnosis(
        "sqlite",
        f"SQLite {version} has the WAL-reset bug (3.7.0 to 3.51.2): in rare cases two "
        "processes that write at the same time damage the log",
        "Update the system's SQLite (on Debian: libsqlite3-0) to 3.51.3 or newer, or "
        "use a Python that includes one; until then keep backups: herdbook backup",
        level=Level.NOTICE,
    )


def check_log(log: Path, now: datetime, *, mounts: Path = MOUNTS) -> list[Diagnosis]:
    """Check the file of a log, and its disk.

    Args:
        log: The file.
        now: The current time, UTC.
        mounts: The list of mounted file systems.
    """
    if is_read_only(log):
        what = f"{log} is read-only: it can be read, but nothing is recorded"
        remedy = (
            "To record events, grant write permission for the log and its directory"
        )
        return [diagnosis("log", what, remedy, level=Level.WARNING)]
    try:
        found = [*_file(log, examine(log), now)]
    except StoreUnavailableError as error:
        return [failed("log", error)]  # the other checks need the file
    except StoreError as error:
        found = [failed("log", error)]
    free_bytes = shutil.disk_usage(log.parent).free
    return [
        *found,
        *_permissions(log),
        check_file_system(log, mounts),
        check_disk(free_bytes, log.parent),
    ]


def _file(log: Path, condition: Condition | None, now: datetime) -> Iterator[Diagnosis]:
    if condition is None:
        what = f"{log} does not exist yet; the first command that needs it creates it"
        yield diagnosis("log", what, level=Level.NOTICE)
        return
    yield diagnosis(
        "log",
        f"{log}, {bytes_text(log.stat().st_size)}, schema {condition.schema}, "
        f"{condition.last.position:,} events; to check each event: herdbook verify",
    )
    yield _settings(condition)
    yield _schema(condition)
    yield check_head(condition.head, condition.last)
    yield _kept_head(condition)
    yield check_wal(_size(log_file_path(log, "-wal")))
    yield check_clock(condition.recorded_at, now)


def failed(check: str, error: HerdbookError) -> Diagnosis:
    """Return a failed check, with the state and remedy of an error."""
    what = f"{error.subject} {error.state}"
    return diagnosis(check, what, error.remedy, level=Level.PROBLEM)


def _settings(condition: Condition) -> Diagnosis:
    if not condition.settings:
        return diagnosis("pragmas", "correct")
    return diagnosis(
        "pragmas",
        "; ".join(condition.settings),
        "Put the log on a local disk, and use a standard build of SQLite",
        level=Level.PROBLEM,
    )


def _schema(condition: Condition) -> Diagnosis:
    if condition.foreign and not condition.altered:
        return diagnosis(
            "triggers",
            f"complete; tables of other programs: {', '.join(condition.foreign)}",
            "No action is needed if a backup or replication tool created them",
            level=Level.NOTICE,
        )
    if not condition.altered:
        return diagnosis("triggers", "complete: events cannot be changed or deleted")
    return diagnosis(
        "triggers",
        f"missing, altered or added: {', '.join(condition.altered)}",
        "The file was altered. Run herdbook verify to find other changes, or restore "
        "a backup",
        level=Level.PROBLEM,
    )


def check_instances(others: int) -> Diagnosis:
    """Report how many other instances use the log."""
    if not others:
        return diagnosis("instances", "no other instance uses the log")
    count = counted(others, "other instance")
    return diagnosis("instances", f"log in use by {count}")


def check_head(head: Head, last: Head) -> Diagnosis:
    """Check that the head row matches the newest event.

    Args:
        head: The head row.
        last: The newest event.
    """
    if head == last and not last.position:
        return diagnosis("head", "the log has no events yet")
    if head == last:
        return diagnosis("head", f"the log ends at its recorded head, #{last.position}")
    return diagnosis(
        "head",
        f"the recorded head is #{head.position}, but the newest event is "
        f"#{last.position}",
        "Events are missing or altered. Run herdbook verify to find them, or restore "
        "a backup",
        level=Level.PROBLEM,
    )


def _kept_head(condition: Condition) -> Diagnosis:
    if condition.missing:
        return diagnosis(
            "kept_head", condition.missing, ACCEPT_LOSS, level=Level.PROBLEM
        )
    if condition.is_kept_damaged:
        return diagnosis(
            "kept_head",
            "cannot be read, so missing events at the end of the log would go "
            "unnoticed",
            "It is written again with the next event",
            level=Level.NOTICE,
        )
    if condition.kept is None:
        return diagnosis("kept_head", "none yet; it is written with the next event")
    return diagnosis(
        "kept_head", f"the saved head, #{condition.kept.position}, is in the log"
    )


def check_wal(size_bytes: int) -> Diagnosis:
    """Check the size of the write-ahead log."""
    size = bytes_text(size_bytes)
    if not size_bytes:
        return diagnosis("wal", "empty: all events are in the log file")
    if size_bytes <= LARGE_WAL:
        return diagnosis(
            "wal",
            f"the newest events are in the -wal file ({size}): a copy of the log "
            "without this file misses them",
        )
    return diagnosis(
        "wal",
        f"the write-ahead log has grown to {size}: a program keeps the file open",
        "Close other programs that have the log open; the last one to close it "
        "moves the write-ahead log into the file",
        level=Level.WARNING,
    )


def check_clock(recorded_at: Sequence[datetime], now: datetime) -> Diagnosis:
    """Check the times of the newest events.

    Args:
        recorded_at: When they were recorded, in order of position.
        now: The current time, UTC.
    """
    ahead = max(recorded_at, default=now) - now
    if ahead > CLOCK_TOLERANCE:
        return diagnosis(
            "clock",
            f"events were recorded up to {duration_text(ahead.total_seconds())} in the "
            "future, by this computer's clock",
            "Correct the clock; until then, as-of queries may miss events",
            level=Level.WARNING,
        )
    set_back = sum(one > other for one, other in pairwise(recorded_at))
    if not set_back:
        return diagnosis("clock", "the newest events are in chronological order")
    return diagnosis(
        "clock",
        f"was set back {counted(set_back, 'time')} within the newest "
        f"{counted(len(recorded_at), 'event')}",
        "Use positions instead of times in that range; they are unique",
        level=Level.NOTICE,
    )


def _permissions(log: Path) -> Iterator[Diagnosis]:
    """Yield the files and directories that other users may write."""
    others = (log_file_path(log, ending) for ending in ("-wal", "-shm"))
    places = [place for place in (log.parent, log, *others) if place.exists()]
    found = [d for place in places if (d := check_mode(place, place.stat().st_mode))]
    yield from found
    if not found:
        yield diagnosis("permissions", "only you can write to the log")


def check_mode(place: Path, mode: int) -> Diagnosis | None:
    """Check who may write a file or directory; None if only its owner may.

    Args:
        place: The file or directory.
        mode: The mode, as ``stat`` returns it. A directory that all may write is
            fine if only owners may remove files (``/tmp``).
    """
    if stat.S_ISDIR(mode) and mode & stat.S_ISVTX:
        return None
    everyone = bool(mode & stat.S_IWOTH)
    if not everyone and not mode & stat.S_IWGRP:
        return None
    who = "everyone" if everyone else "its group"
    return diagnosis(
        "permissions",
        f"{place} is writable by {who}",
        f"If this is not intended, run: chmod {'o' if everyone else 'g'}-w {place}",
        level=Level.WARNING if everyone else Level.NOTICE,
    )


def check_file_system(log: Path, mounts: Path = MOUNTS) -> Diagnosis:
    """Check that the log is not on a network file system."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        what = "not known; do not keep a log on a network file system"
        return diagnosis("file_system", what, level=Level.NOTICE)
    kind = _kind(log.absolute().parent, lines)
    if not _NETWORK.fullmatch(kind):
        return diagnosis("file_system", f"local disk ({kind or 'unknown type'})")
    return diagnosis(
        "file_system",
        f"{kind} is a network file system: the write-ahead log only works on one "
        "machine",
        "Move the log to a local disk",
        level=Level.PROBLEM,
    )


def _kind(folder: Path, lines: list[str]) -> str:
    """Return the type of the file system that a directory is on."""
    kinds: dict[Path, str] = {}
    for line in lines:
        _, place, kind, *_ = line.split(" ")
        kinds[Path(re.sub(r"\\([0-7]{3})", _unescaped, place))] = kind
    real = folder.resolve()
    return next((kinds[p] for p in (real, *real.parents) if p in kinds), "")


def _unescaped(found: re.Match[str]) -> str:
    return chr(int(found[1], 8))


def check_disk(free_bytes: int, folder: Path) -> Diagnosis:
    """Check the free space on the log's disk."""
    what = f"{bytes_text(free_bytes)} free in {folder}"
    if free_bytes >= LITTLE_DISK:
        return diagnosis("disk", what)
    level = Level.PROBLEM if free_bytes < NO_DISK else Level.WARNING
    return diagnosis("disk", what, "Free some disk space", level=level)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
