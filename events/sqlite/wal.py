"""Find damage in a write-ahead log that SQLite would take for the end of it.

SQLite reads a ``-wal`` up to the first frame whose checksum is wrong and drops the
rest: a crash may have torn the last commit. Damage before the end looks the same,
and then acknowledged commits are dropped. The two can be told apart: each commit is
synced before the next begins (``synchronous=FULL``), so a crash leaves no frame that
continues after the commit mark of a torn commit.

The format is that of https://www.sqlite.org/walformat.html. Frames of an earlier use
of the file have other salts, and those of a transaction that was rolled back are not
continued: neither is damage.
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
from herdbook.events.file_descriptors import RAISE_THE_LIMIT, is_exhausted
from herdbook.events.sqlite.log_file import beside

MOST_FRAMES = 20_000
"""Frames that are read at most (80 MB, about a second). SQLite moves the frames into
the log at 1,000, unless something keeps it from that."""

LOOKS = 3
"""Times that damage must be found: what another process writes just now looks like it
if it is read in the middle."""

LOOK_AGAIN_S = 0.05
"""Seconds between two looks."""

LOCKS = Path("/proc/locks")
"""Where Linux lists the locks on files."""

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
        commits: Complete commits that it would drop.
    """

    frame: int
    commits: int


class _Format(NamedTuple):
    """How to read the frames; no salts and checksum if the header is damaged."""

    page_bytes: int
    order: str
    salts: Salts | None
    checksum: Checksum | None


class _Frame(NamedTuple):
    """A frame.

    Attributes:
        number: Its number, from 1.
        is_commit: Whether it completes a commit.
        salts: Its salts.
        follows: Whether it continues the checksums of the frame before it.
    """

    number: int
    is_commit: bool
    salts: Salts
    follows: bool


def check_wal(log: Path) -> None:
    """Refuse a log of which SQLite would drop acknowledged commits.

    Raises:
        CorruptLogError: Commits stand after damage; no file was changed.
    """
    wal = beside(log, "-wal")
    if not needs_check(log):
        return
    try:
        damage = find_damage(wal)
        for _ in range(LOOKS - 1):
            if damage is None:
                return
            time.sleep(LOOK_AGAIN_S)
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
    name = beside(log).name
    raise CorruptLogError(
        str(wal),
        f"is damaged at frame {damage.frame}, before {damage.commits} complete "
        "commits that SQLite would drop. Nothing was changed",
        f"First copy {name} and {wal.name} to a safe place. Then restore a backup, or "
        "continue without those commits: herdbook verify --accept",
    )


def needs_check(log: Path) -> bool:
    """Return whether opening the log lets SQLite decide where its ``-wal`` ends.

    It does not while a process has the log open: the frames that this one knows are
    used then, and none is dropped.
    """
    return beside(log, "-wal").exists() and not is_in_use(log)


def is_in_use(log: Path) -> bool:
    """Return whether a process surely has the log open; False if unknown.

    Every connection of SQLite holds a lock on the ``-shm``. The list of the kernel is
    read, since opening and closing that file could drop the locks of this process.
    """
    try:
        found = beside(log, "-shm").stat()
        lines = LOCKS.read_text("ascii", "replace").splitlines()
    except OSError:
        return False
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
    file = f"{device}:{found.st_ino}"
    return any(file in line.split() and "->" not in line for line in lines)


def find_damage(wal: Path) -> Damage | None:
    """Return where complete commits stand after damage; None if nowhere.

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
    """Yield how the frames may be read: one way, unless the header is damaged."""
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
    """Look for a commit that is continued although a frame up to it is bad."""
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
            proven = commits  # a frame after them was written: they were synced
        is_after_commit = is_ours and frame.is_commit
        commits += is_after_commit
    if not proven:
        return None
    return Damage(bad, commits)


def _checksum(data: bytes, order: str, seed: Checksum) -> Checksum:
    """Return SQLite's checksum of a multiple of 8 bytes.

    The sums are cut to 32 bits at the end, once: that is faster than every time.
    """
    one, other = seed
    words = iter(struct.unpack(f"{order}{len(data) // 4}I", data))
    for first, second in zip(words, words, strict=True):
        one += first + other
        other += second + one
    return one & 0xFFFFFFFF, other & 0xFFFFFFFF
