"""The file of a log: which file it is, whether it may be opened, what is beside it.

A log is identified by its file, not by the path that was given. SQLite finds the
``-wal`` and the ``-shm`` by name, so a file with two names has two of them, and two
writers that do not see each other: each overwrites what the other was told is
recorded. Symbolic links are resolved; hard links and mounts of the file are refused.

Nothing here opens the main file and closes it again while SQLite may have it open:
that would drop the locks that this process holds on it (POSIX record locks).
"""

from __future__ import annotations

import os
import re
import stat
import sys
from contextlib import suppress
from pathlib import Path

from herdbook.events.errors import (
    CorruptLogError,
    StoreClosedError,
    StoreUnavailableError,
)
from herdbook.events.file_descriptors import RAISE_THE_LIMIT, TOO_MANY, is_exhausted

MOUNT_INFO = Path("/proc/self/mountinfo")
"""Where Linux lists the mounts that this process sees."""


def beside(log: str | os.PathLike[str], ending: str = "") -> Path:
    """Return the path of a file that belongs to a log, by the log's resolved path.

    Args:
        log: The log, by whatever path.
        ending: What the name of the other file adds to the log's, such as ``-wal``;
            empty for the log itself.
    """
    real = Path(os.path.realpath(log))
    return real.with_name(f"{real.name}{ending}")


def is_there(path: Path) -> bool:
    """Return whether the log exists and has something in it.

    Raises:
        StoreUnavailableError: There is no place for it, it may not be written, or it
            has more than one name.
        CorruptLogError: It is missing or empty, and its ``-wal`` is not.
    """
    try:
        _check_place(path)
        _check_names(path)
        # In this order: whoever makes a log writes the file first, then the -wal.
        wal_bytes = _size(beside(path, "-wal"))
        if _size(path):
            return True
    except (OSError, ValueError) as error:  # too long, in a circle, or with a NUL
        if is_exhausted(error):
            raise StoreUnavailableError(
                str(path), f"cannot be opened: {TOO_MANY}", RAISE_THE_LIMIT
            ) from error
        raise StoreUnavailableError(
            str(path), f"cannot be a file: {error}", "Name another one"
        ) from error
    if wal_bytes:
        raise _orphaned_wal(path, wal_bytes)
    return False


def _check_place(path: Path) -> None:
    """Refuse at once what SQLite would refuse late, or wait for: a pipe."""
    if path.is_dir():
        raise StoreUnavailableError(str(path), "is a directory", "Name a file")
    if path.exists() and not path.is_file():
        raise StoreUnavailableError(str(path), "is not a file", "Name a file")
    home = Path(os.path.realpath(path)).parent
    if not home.is_dir():
        raise StoreUnavailableError(
            str(path), "has no directory to be in", f"Make {home} first"
        )
    for place in (home, path):
        if place.exists() and not os.access(place, os.R_OK | os.W_OK):
            raise StoreUnavailableError(
                str(path),
                "cannot be read and written",
                f"Give permission to read and write {place}",
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
            "is a mount point of its own: its -wal is not shared with other users of "
            "the file, so recorded events would be lost",
            f"Mount the directory that contains it instead of the file {real.name}",
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
        # Devices are compared elsewhere only: on Linux, a file on an overlay may have
        # another device than its directory without being mounted.
        is_linux = sys.platform == "linux"
        return not is_linux and path.stat().st_dev != path.parent.stat().st_dev
    return os.fsencode(path) in {_unescaped(line.split(b" ")[4]) for line in lines}


def _unescaped(place: bytes) -> bytes:
    """Undo how the kernel writes spaces and the like: as three octal digits."""
    return re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), place)


def _orphaned_wal(path: Path, wal_bytes: int) -> CorruptLogError:
    state = "is empty" if path.exists() else "is missing"
    wal = beside(path, "-wal")
    return CorruptLogError(
        str(path),
        f"{state}, but its write-ahead log {wal.name} has {wal_bytes:,} bytes: the "
        "log was moved, truncated or only partly restored. Nothing was changed",
        f"Put the log back next to {wal}. To start a new log, move {wal.name} away",
    )


def create_private(path: Path) -> None:
    """Create an empty file that only its owner may read; leave one that exists.

    SQLite gives the ``-wal`` and the ``-shm`` the mode of the log.
    """
    with suppress(OSError):  # SQLite reports why there can be none
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


class OpenFile:
    """The file of an open log: refuses to go on when it is not that file any more.

    Args:
        path: Its resolved path.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._process = os.getpid()
        found = path.stat()
        self._identity = found.st_dev, found.st_ino
        self._seen = 0, 0

    def check(self) -> None:
        """Check that this process opened it, and that it is where it was.

        SQLite goes on with a file that was deleted, and what it then takes is gone
        when it is closed.

        Raises:
            StoreUnavailableError: Another file is at the path, or none; or it has
                another name now.
            StoreClosedError: This is a fork of the process that opened it.
        """
        if self.is_foreign:
            raise StoreClosedError(
                str(self.path),
                f"was opened by process {self._process}; this one is a fork of it",
                "Open the log in this process",
            )
        try:
            found = self.path.stat()
        except OSError:
            found = None
        if found is None or (found.st_dev, found.st_ino) != self._identity:
            raise StoreUnavailableError(
                str(self.path),
                "was moved, deleted or replaced while it was open",
                "Put it back where it was, then start again",
            )
        if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
            raise _several_names(self.path, found.st_nlink)

    @property
    def is_foreign(self) -> bool:
        """Whether another process opened it, of which this one is a fork."""
        return os.getpid() != self._process

    def stamp(self) -> tuple[int, int] | None:
        """Return size and time of the last change, if they are not the ones seen.

        In WAL mode the main file changes at checkpoints alone.
        """
        found = self.path.stat()
        stamp = found.st_size, found.st_mtime_ns
        return stamp if stamp != self._seen else None

    def saw(self, stamp: tuple[int, int]) -> None:
        """Remember that the file with this stamp was checked."""
        self._seen = stamp


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
