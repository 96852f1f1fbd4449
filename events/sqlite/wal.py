"""Find damage in a write-ahead log that SQLite would treat as its end.

SQLite reads a ``-wal`` up to the first frame with a wrong checksum and drops the
rest, since a crash may have torn the last commit. Damage before the end looks the
same, and then acknowledged commits are dropped. The two cases differ: each commit is
synced before the next one starts (``synchronous=FULL``), so a crash leaves no frame
that continues after the commit mark of a torn commit.

The format is described in https://www.sqlite.org/walformat.html. Frames of an earlier
use of the file have other salts, and frames of a transaction that was rolled back are
not continued: neither is damage.
"""

from __future__ import annotations

import os
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from herdbook.events.errors import CorruptLogError, StoreUnavailableError
from herdbook.events.shared.file_descriptors import RAISE_THE_LIMIT, is_exhausted
from herdbook.events.sqlite.log_file import log_file_path

MOST_FRAMES = 20_000
"""Maximum number of frames that are read (80 MB, about a second). SQLite moves the
frames into the main file at 1,000, unless a reader prevents it."""

ATTEMPTS = 3
"""Number of times that the same damage must be found: frames that another process is
writing look like damage."""

RETRY_S = 0.05
"""Interval between two attempts, seconds."""

LOCKS = Path("/proc/locks")
"""The file in which Linux lists the locks on files."""

_HEADER = struct.Struct(">8I")
_FRAME = struct.Struct(">6I")
_MAGIC = 0x377F0682
_USUAL_PAGE = 4096

Checksum = tuple[int, int]
Salts = tuple[int, int]


class Damage(NamedTuple):
    """Damage in a write-ahead log.

    Attributes:
        frame: Number of the first frame that SQLite would drop, from 1.
        commits: Number of complete commits that SQLite would drop.
    """

    frame: int
    commits: int


class _Format(NamedTuple):
    """Format of the frames, without salts and checksum if the header is damaged."""

    page_bytes: int
    order: str
    salts: Salts | None
    checksum: Checksum | None


class _Frame(NamedTuple):
    """A frame of the write-ahead log.

    Attributes:
        number: Number of the frame, from 1.
        is_commit: Whether the frame completes a commit.
        salts: Salts of the frame.
        follows: Whether its checksum continues that of the previous frame.
    """

    number: int
    is_commit: bool
    salts: Salts
    follows: bool


def check_wal(log: Path) -> None:
    """Refuse a log if SQLite would drop acknowledged commits on opening it.

    Raises:
        CorruptLogError: Commits follow damage; no file was changed.
    """
    wal = log_file_path(log, "-wal")
    if not needs_check(log):
        return
    try:
        damage = find_damage(wal)
        for _ in range(ATTEMPTS - 1):
            if damage is None:
                return
            time.sleep(RETRY_S)
            if find_damage(wal) != damage:  # another process was writing
                return
    except FileNotFoundError:
        return
    except OSError as error:
        remedy = f"Give permission to read and write {wal}"
        raise StoreUnavailableError(
            str(wal),
            f"cannot be read: {error.strerror}",
            RAISE_THE_LIMIT if is_exhausted(error) else remedy,
        ) from error
    if damage is None:
        return
    name = log_file_path(log).name
    raise CorruptLogError(
        str(wal),
        f"is damaged at frame {damage.frame}, before {damage.commits} complete "
        "commits that SQLite would drop. Nothing was changed",
        f"First copy {name} and {wal.name} to a safe place. Then restore a backup, or "
        "continue without those commits: herdbook verify --accept",
    )


def needs_check(log: Path) -> bool:
    """Return whether SQLite will look for the end of the ``-wal`` on opening the log.

    While another process has the log open, SQLite uses the frames that this process
    knows, and drops none.
    """
    return log_file_path(log, "-wal").exists() and not is_in_use(log)


def is_in_use(log: Path, *, by_others: bool = False) -> bool:
    """Return whether a process has the log open; False if that is unknown.

    Every connection of SQLite holds a lock on the ``-shm``. This reads the kernel's
    list of locks, since opening and closing the file could drop the locks of this
    process.

    Args:
        log: The log.
        by_others: Whether this process does not count.
    """
    try:
        found = log_file_path(log, "-shm").stat()
        lines = LOCKS.read_text("ascii", "replace").splitlines()
    except OSError:
        return False
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
    file = f"{device}:{found.st_ino}"
    own = str(os.getpid()) if by_others else None
    held = (line.split() for line in lines if "->" not in line)
    return any(file in fields and fields[4] != own for fields in held)


def find_damage(wal: Path) -> Damage | None:
    """Return damage that is followed by complete commits, or None.

    Raises:
        OSError: The file cannot be read.
    """
    with wal.open("rb") as file:
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size:
            return None
        for form in _formats(header):
            file.seek(_HEADER.size)
            if damage := _judge(_frames(file, form), form):
                return damage
    return None


def _formats(header: bytes) -> Iterator[_Format]:
    """Yield the possible formats of the frames: one, unless the header is damaged."""
    magic, _, page_bytes, _, *salts, one, other = _HEADER.unpack(header)
    order = ">" if magic & 1 else "<"
    checksum = _checksum(header[:24], order, (0, 0))
    sane = page_bytes.bit_count() == 1 and 512 <= page_bytes <= 65536
    if magic & ~1 == _MAGIC and sane and checksum == (one, other):
        yield _Format(page_bytes, order, (salts[0], salts[1]), checksum)
        return
    native = ">" if sys.byteorder == "big" else "<"
    for size in sorted({page_bytes, _USUAL_PAGE} if sane else {_USUAL_PAGE}):
        yield _Format(size, native, None, None)


def _frames(file: BinaryIO, form: _Format) -> Iterator[_Frame]:
    previous = form.checksum
    for number in range(1, MOST_FRAMES + 1):
        raw = file.read(_FRAME.size + form.page_bytes)
        if len(raw) < _FRAME.size + form.page_bytes:
            return
        _, size, *salts, one, other = _FRAME.unpack_from(raw)
        follows = False
        if previous is not None:
            seed = _checksum(raw[:8], form.order, previous)
            follows = _checksum(raw[24:], form.order, seed) == (one, other)
        yield _Frame(number, size > 0, (salts[0], salts[1]), follows)
        previous = one, other


def _judge(frames: Iterator[_Frame], form: _Format) -> Damage | None:
    """Find a commit that later frames continue although an earlier frame is bad."""
    salts = form.salts
    bad = 0 if form.checksum else 1  # the number of the first bad frame
    commits = proven = 0
    is_after_commit = False
    for frame in frames:
        salts = salts or frame.salts
        is_ours = frame.salts == salts
        if not bad and not (is_ours and frame.follows):
            bad = frame.number
        if not bad:
            continue
        if is_ours and frame.follows and is_after_commit:
            proven = commits  # a later frame was written, so they were synced
        is_after_commit = is_ours and frame.is_commit
        commits += is_after_commit
    if not proven:
        return None
    return Damage(bad, commits)


def _checksum(data: bytes, order: str, seed: Checksum) -> Checksum:
    """Return SQLite's checksum of a multiple of 8 bytes.

    The sums are cut to 32 bits once at the end, which is faster than at each step.
    """
    one, other = seed
    words = iter(struct.unpack(f"{order}{len(data) // 4}I", data))
    for first, second in zip(words, words, strict=True):
        one += first + other
        other += second + one
    return one & 0xFFFFFFFF, other & 0xFFFFFFFF
