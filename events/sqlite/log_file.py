"""The file of a log: its identity, the checks before opening, and its other files.

A log is identified by its file, not by the path that was given. SQLite finds the
``-wal`` and the ``-shm`` by name. A file with two names would have two of each, and
two writers would overwrite each other's acknowledged events. So symbolic links are
resolved, and hard links and mounts of the file are refused.

Nothing here opens the main file and closes it again while SQLite may have it open:
that would drop the locks that this process holds on it (POSIX record locks).
"""

from __future__ import annotations

import os
import re
import stat
import sys
from contextlib import suppress
from enum import Enum
from pathlib import Path

from herdbook.events.errors import (
    CorruptLogError,
    StoreClosedError,
    StoreUnavailableError,
)
from herdbook.events.shared.file_descriptors import (
    RAISE_THE_LIMIT,
    TOO_MANY,
    is_exhausted,
)

MOUNT_INFO = Path("/proc/self/mountinfo")
"""The file in which Linux lists the mounts of this process."""


ENDINGS = ("", "-wal", "-shm", "-journal", "-head", "-head.new", "-instances")
"""Endings of the files of a log; the last one is a directory."""


def log_file_path(log: str | os.PathLike[str], ending: str = "") -> Path:
    """Return the path of a file that belongs to a log, next to its resolved path.

    Args:
        log: Any path of the log.
        ending: Suffix of the other file, such as ``-wal``; empty for the log itself.
    """
    return Path(f"{os.path.realpath(log)}{ending}")


def belongs_to_log(path: Path, log: Path) -> bool:
    """Return whether a path is one of the files of a log, or in its directory."""
    real = log_file_path(path)
    files = {log_file_path(log, ending) for ending in ENDINGS}
    return not files.isdisjoint((real, *real.parents))


class Access(Enum):
    """What a store may do with the file of a log; the value is for SQLite's URI."""

    WRITE = "mode=rwc"
    COPY = "mode=rwc&cache=private"
    """The file is a private copy: it may change, but appends would be lost."""
    IMMUTABLE = "mode=ro&immutable=1"
    """Nobody writes to the file, and no other file is read or written."""


def log_exists(path: Path, *, writable: bool = True) -> bool:
    """Return whether the log exists and is not empty.

    Args:
        path: The log.
        writable: Whether the file and its directory must be writable.

    Raises:
        StoreUnavailableError: The directory is missing, the log is not writable, or
            it has more than one name.
        CorruptLogError: The log is missing or empty, but its ``-wal`` is not.
    """
    try:
        _check_place(path, os.R_OK | os.W_OK if writable else os.R_OK)
        _check_names(path)
        # In this order: a new log gets its main file first, then its -wal.
        wal_bytes = _size(log_file_path(path, "-wal"))
        if _size(path):
            return True
    except PermissionError as error:
        raise _no_permission(path) from error
    except (OSError, ValueError) as error:  # too long, circular links, or a NUL
        if is_exhausted(error):
            raise StoreUnavailableError(
                str(path), f"cannot be opened: {TOO_MANY}", RAISE_THE_LIMIT
            ) from error
        raise StoreUnavailableError(
            str(path),
            f"is not a usable path: {getattr(error, 'strerror', None) or error}",
            "Use another path",
        ) from error
    if wal_bytes:
        raise _orphaned_wal(path, wal_bytes)
    return False


def _no_permission(path: Path) -> StoreUnavailableError:
    return StoreUnavailableError(
        str(path),
        "cannot be accessed: permission denied",
        "Give permission to use its directory and those above it",
    )


def _check_place(path: Path, access: int) -> None:
    """Refuse early what SQLite would refuse late, or block on, such as a pipe."""
    if path.is_dir():
        raise StoreUnavailableError(
            str(path), "is a directory", "Use the path of a file"
        )
    if path.exists() and not path.is_file():
        raise StoreUnavailableError(
            str(path), "is not a regular file", "Use the path of a file"
        )
    home = Path(os.path.realpath(path)).parent
    if not home.is_dir():
        raise StoreUnavailableError(
            str(path), "is in a directory that does not exist", f"Create {home} first"
        )
    for place in (home, path):
        if place.exists() and not os.access(place, access):
            verbs = "read and written", "read and write"
            done, to_do = verbs if access & os.W_OK else ("read", "read")
            raise StoreUnavailableError(
                str(path), f"cannot be {done}", f"Give permission to {to_do} {place}"
            )


def _check_names(path: Path) -> None:
    if not path.exists():
        return
    real = Path(os.path.realpath(path))
    if (links := real.stat().st_nlink) > 1:
        raise _several_names(real, links)
    if _is_mount_point(real):
        raise StoreUnavailableError(
            str(path),
            "is a mount point: its -wal is not shared with other users of "
            "the file, so recorded events would be lost",
            f"Mount the directory that contains {real.name} instead of the file",
        )


def _several_names(path: Path, links: int) -> StoreUnavailableError:
    return StoreUnavailableError(
        str(path),
        f"has {links} names (hard links): each name has its own -wal, so recorded "
        "events would be lost",
        f"Find the names with: find / -xdev -samefile {path}. Remove all but one, or "
        "use a copy",
    )


def _is_mount_point(path: Path) -> bool:
    try:
        lines = MOUNT_INFO.read_bytes().splitlines()
    except OSError:
        # Devices are not compared on Linux, where a file on an overlay may have
        # another device than its directory without being mounted.
        is_linux = sys.platform == "linux"
        return not is_linux and path.stat().st_dev != path.parent.stat().st_dev
    return os.fsencode(path) in {_unescaped(line.split(b" ")[4]) for line in lines}


def _unescaped(place: bytes) -> bytes:
    """Decode the octal escapes of the kernel for spaces and other characters."""
    return re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), place)


def _orphaned_wal(path: Path, wal_bytes: int) -> CorruptLogError:
    state = "is empty" if path.exists() else "is missing"
    wal = log_file_path(path, "-wal")
    return CorruptLogError(
        str(path),
        f"{state}, but its write-ahead log {wal.name} has {wal_bytes:,} bytes: the "
        "log was moved, truncated or only partly restored. Nothing was changed",
        f"Put the log back next to {wal}. To start a new log, move {wal.name} away",
    )


def create_private(path: Path) -> None:
    """Create an empty file that only its owner may read; keep an existing file.

    SQLite gives the ``-wal`` and the ``-shm`` the mode of the log.
    """
    with suppress(OSError):  # SQLite reports the reason
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


class OpenFile:
    """The file of an open log, to detect that it was replaced or moved.

    Args:
        path: Resolved path of the log.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._process = os.getpid()
        found = path.stat()
        self._identity = found.st_dev, found.st_ino
        self._checked = 0, 0
        self._opened = found.st_size, found.st_mtime_ns

    def check_process(self) -> None:
        """Check that this process opened the file.

        Raises:
            StoreClosedError: This is a fork of the process that opened the file.
        """
        if self.is_fork:
            raise StoreClosedError(
                str(self.path),
                f"was opened by process {self._process}, but this is a fork of it",
                "Open the log in this process",
            )

    def check(self) -> os.stat_result:
        """Check that this process opened the file, and that it is still at its path.

        SQLite continues to write to a deleted file, and such events are lost when the
        file is closed.

        Returns:
            What the file system knows of the file.

        Raises:
            StoreUnavailableError: The file was moved, deleted or replaced, has a second
                name, or is in a directory that may not be used any more.
            StoreClosedError: This is a fork of the process that opened the file.
        """
        self.check_process()
        try:
            found = self.path.stat()
        except PermissionError as error:
            raise _no_permission(self.path) from error
        except OSError:
            found = None
        if found is None or (found.st_dev, found.st_ino) != self._identity:
            raise StoreUnavailableError(
                str(self.path),
                "was moved, deleted or replaced while it was open",
                "Put it back, then restart Herdbook",
            )
        if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
            raise _several_names(self.path, found.st_nlink)
        return found

    @property
    def is_fork(self) -> bool:
        """Whether this is a fork of the process that opened the file."""
        return os.getpid() != self._process

    def stamp(self, found: os.stat_result) -> tuple[int, int] | None:
        """Return size and modification time; None if they were checked already.

        In WAL mode, only checkpoints change the main file.

        Args:
            found: What ``check`` returned.
        """
        stamp = found.st_size, found.st_mtime_ns
        return stamp if stamp != self._checked else None

    def check_unchanged(self) -> None:
        """Check that nobody has written to the file since it was opened.

        Raises:
            StoreUnavailableError: The file has changed, or has a ``-wal`` now.
        """
        found = self.path.stat()
        changed = (found.st_size, found.st_mtime_ns) != self._opened
        if changed or _size(log_file_path(self.path, "-wal")):
            raise StoreUnavailableError(
                str(self.path), "was changed while it was read", "Run this again"
            )

    def mark_checked(self, stamp: tuple[int, int]) -> None:
        """Remember the stamp of a file that was checked."""
        self._checked = stamp


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
