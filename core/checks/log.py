"""Checks of the log's file and of what it stands on, without opening it to write.

Each check tells what it found, well or not; one that cannot tell says so. A log that
is not there is not made.
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
from herdbook.core.storage import ACCEPT_LOSS
from herdbook.events.sqlite.condition import Condition, examine
from herdbook.events.sqlite.log_file import log_file_path
from herdbook.projections.sentences import bytes_text, duration_text

FIRST_SQLITE_WITHOUT_RESET_BUG = (3, 51, 3)
"""Versions 3.7.0 to 3.51.2 have the WAL-reset bug (sqlite.org/wal.html, 2026-03)."""

LITTLE_DISK = 1_000_000_000
"""Free bytes below which the log's disk is called nearly full."""

NO_DISK = 100_000_000
"""Free bytes below which it is called full: a checkpoint may need that at once."""

LARGE_WAL = 64_000_000
"""Bytes of the write-ahead log beyond which something keeps it from being moved into
the file: that is done at 4 MB (1,000 pages, SQLite's default)."""

CLOCK_TOLERANCE = timedelta(seconds=5)
"""How far ahead the clock of another process on the same log may be."""

MOUNTS = Path("/proc/mounts")
"""Where Linux tells which file systems there are."""

_NETWORK = re.compile(
    r"9p|afs|beegfs|ceph|cifs|fuse\.(sshfs|s3fs|glusterfs|rclone)|glusterfs|gpfs"
    r"|lustre|ncpfs|nfs\d?|smb\w*|vboxsf|virtiofs"
)


def check_sqlite(version: str = sqlite3.sqlite_version) -> Diagnosis:
    """Check SQLite's own version."""
    if tuple(map(int, version.split("."))) >= FIRST_SQLITE_WITHOUT_RESET_BUG:
        return diagnosis("sqlite", f"SQLite {version}")
    return diagnosis(
        "sqlite",
        f"SQLite {version} has the WAL-reset bug (3.7.0 to 3.51.2): in rare cases two "
        "processes that write at the same moment damage the log",
        "Use a Python with SQLite 3.51.3 or newer; until then keep backups",
        level=Level.WARNING,
    )


def check_log(log: Path, now: datetime, *, mounts: Path = MOUNTS) -> list[Diagnosis]:
    """Check the file of a log, and where it is kept.

    Args:
        log: The file.
        now: The present, UTC.
        mounts: Where the mounted file systems are listed.
    """
    try:
        found = [*_file(log, examine(log), now)]
    except StoreUnavailableError as error:
        return [failed("log", error)]  # and there is no place to tell more about
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
        what = f"{log} is not there yet; the first verb that needs it makes it"
        yield diagnosis("log", what, level=Level.NOTICE)
        return
    yield diagnosis(
        "log",
        f"{log}, {bytes_text(log.stat().st_size)}, schema {condition.schema}, "
        f"{condition.last.position:,} events; to check each: herdbook verify",
    )
    yield _settings(condition)
    yield _schema(condition)
    yield _head(condition)
    yield _kept_head(condition)
    yield check_wal(_size(log_file_path(log, "-wal")))
    yield check_clock(condition.recorded_at, now)


def failed(check: str, error: HerdbookError) -> Diagnosis:
    """Return that a check ended with an error, whose remedy is its own."""
    what = f"{error.subject} {error.state}"
    return diagnosis(check, what, error.remedy, level=Level.PROBLEM)


def _settings(condition: Condition) -> Diagnosis:
    if not condition.settings:
        return diagnosis("pragmas", "as they should be")
    return diagnosis(
        "pragmas",
        "; ".join(condition.settings),
        "Keep the log on a local disk, with an SQLite as its makers build it",
        level=Level.PROBLEM,
    )


def _schema(condition: Condition) -> Diagnosis:
    if not condition.altered:
        return diagnosis("triggers", "all there: events cannot be changed or deleted")
    return diagnosis(
        "triggers",
        f"missing, or not as they were made: {', '.join(condition.altered)}",
        "Somebody altered the file. See what else: herdbook verify; restore a backup",
        level=Level.PROBLEM,
    )


def _head(condition: Condition) -> Diagnosis:
    if condition.head == condition.last:
        return diagnosis(
            "head", f"the log ends where its head says, at #{_last(condition)}"
        )
    return diagnosis(
        "head",
        f"the head says that the log ends at #{condition.head.position}, and its "
        f"newest event is #{_last(condition)}",
        "Events are missing or altered. See which: herdbook verify; restore a backup",
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
            "cannot be read, so a missing end of the log would not be noticed",
            "It is written again with the next event",
            level=Level.NOTICE,
        )
    if condition.kept is None:
        return diagnosis("kept_head", "none yet; it is written with the next event")
    return diagnosis(
        "kept_head", f"#{condition.kept.position} is in the log, as it was kept"
    )


def _last(condition: Condition) -> int:
    return condition.last.position


def check_wal(size_bytes: int) -> Diagnosis:
    """Check the size of the write-ahead log."""
    size = bytes_text(size_bytes)
    if not size_bytes:
        return diagnosis("wal", "empty: the log's file alone has all events")
    if size_bytes <= LARGE_WAL:
        return diagnosis(
            "wal",
            f"the newest events are in the -wal ({size}): a copy of the log's file "
            "without it lacks them",
        )
    return diagnosis(
        "wal",
        f"the write-ahead log has {size}: something reads the file without an end",
        "Close other programs that have the log open; the last one to close it "
        "moves the write-ahead log into the file",
        level=Level.WARNING,
    )


def check_clock(recorded_at: Sequence[datetime], now: datetime) -> Diagnosis:
    """Check when the newest events say that they were recorded.

    Args:
        recorded_at: The times, in order of position.
        now: The present, UTC.
    """
    ahead = max(recorded_at, default=now) - now
    if ahead > CLOCK_TOLERANCE:
        return diagnosis(
            "clock",
            f"events were recorded up to {duration_text(ahead.total_seconds())} in the "
            "future, by this computer's clock",
            "Set the clock right; until then questions as of a time may miss events",
            level=Level.WARNING,
        )
    set_back = sum(one > other for one, other in pairwise(recorded_at))
    if not set_back:
        return diagnosis("clock", "has not gone back among the newest events")
    return diagnosis(
        "clock",
        f"went back {set_back} times among the newest {len(recorded_at)} events",
        "Positions tell the order; a time in the overlap has several",
        level=Level.NOTICE,
    )


def _permissions(log: Path) -> Iterator[Diagnosis]:
    """Yield who else may write the log or its directory."""
    others = (log_file_path(log, ending) for ending in ("-wal", "-shm"))
    places = [place for place in (log.parent, log, *others) if place.exists()]
    found = [d for place in places if (d := check_mode(place, place.stat().st_mode))]
    yield from found
    if not found:
        yield diagnosis("permissions", "only you may write the log")


def check_mode(place: Path, mode: int) -> Diagnosis | None:
    """Check who may write a file or directory; None where only its owner may.

    Args:
        place: It.
        mode: Its mode, as ``stat`` tells. A directory that all may write is as good
            as another one where only owners may remove (``/tmp``).
    """
    if stat.S_ISDIR(mode) and mode & stat.S_ISVTX:
        return None
    everybody = bool(mode & stat.S_IWOTH)
    if not everybody and not mode & stat.S_IWGRP:
        return None
    who = "everybody" if everybody else "its group"
    return diagnosis(
        "permissions",
        f"{place} may be written by {who}",
        f"Unless that is meant: chmod {'o' if everybody else 'g'}-w {place}",
        level=Level.WARNING if everybody else Level.NOTICE,
    )


def check_file_system(log: Path, mounts: Path = MOUNTS) -> Diagnosis:
    """Check that the log is not on a network file system, where that can be told."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        what = "cannot be told here; a network file system is no place for a log"
        return diagnosis("file_system", what, level=Level.NOTICE)
    kind = _kind(log.absolute().parent, lines)
    if not _NETWORK.fullmatch(kind):
        return diagnosis("file_system", f"{kind or 'unknown'}, not a network's")
    return diagnosis(
        "file_system",
        f"{kind} is a network's: the write-ahead log needs the memory of one machine",
        "Keep the log on a local disk",
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
    """Check the room that is left where the log is kept."""
    what = f"{bytes_text(free_bytes)} free in {folder}"
    if free_bytes >= LITTLE_DISK:
        return diagnosis("disk", what)
    level = Level.PROBLEM if free_bytes < NO_DISK else Level.WARNING
    return diagnosis("disk", what, "Make room there", level=level)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
