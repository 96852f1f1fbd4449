"""The file of an archive: events of a log, in compressed blocks.

The file is a series of gzip members. The first one has a line of JSON, the header; each
of the others has the canonical bytes of ``BLOCK`` events, one event per line. The hash
of an event is not stored: it is the SHA-256 of the hash before it and of its line. So a
block proves itself by the hash that it must end with, which the log keeps.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias

import msgspec

from herdbook.events.errors import CorruptLogError, StoreUnavailableError
from herdbook.events.recorded import (
    Canonical,
    StoredEvent,
    canonical_bytes,
    chained_hash,
)

FORMAT: Final = "herdbook-archive/1"

BLOCK: Final = 1024
"""Events per block: as many as a block of the Merkle tree has. A block is 30 to 60 kB,
and is read in a few milliseconds."""

_LEVEL: Final = 9
_ENTRY: Final = 8 + 32
_LONGEST_BLOCK: Final = 1 << 30
"""Maximum size of a decompressed block, bytes: 1,024 events of 1 MB each."""

Row: TypeAlias = tuple[Any, ...]


class ArchiveMissingError(StoreUnavailableError):
    """Events are in an archive, and its file is not where it is looked for.

    Attributes:
        first: Position of the first event in the archive.
        last: Position of the last one.
    """

    code = "archive_missing"

    def __init__(self, file: str, *, first: int, last: int) -> None:
        self.first = first
        self.last = last
        super().__init__(
            f"archive {file}",
            f"with the events #{first} to #{last} is missing",
            "Put it next to the log, or set HERDBOOK_ARCHIVES to its directory",
        )


class DamagedArchiveError(CorruptLogError):
    """The file of an archive was changed, or is that of another log.

    Attributes:
        first: Position of the first event in the archive.
        last: Position of the last one.
    """

    code = "damaged_archive"

    def __init__(self, file: Path, archive: Archive, block: int) -> None:
        self.first = archive.first
        self.last = archive.last
        begin = archive.first + block * BLOCK
        super().__init__(
            f"archive {file}",
            f"is damaged: the events #{begin} to #{begin + BLOCK - 1} were changed",
            "Replace it with a copy of the same archive",
        )


UNREADABLE: Final = (ArchiveMissingError, DamagedArchiveError)
"""The errors of a read that needs an archive which cannot be read."""


class Archive(msgspec.Struct, frozen=True, kw_only=True):
    """An archive, as the log that it belongs to describes it.

    Attributes:
        first: Position of its first event.
        last: Position of its last event, the boundary; a multiple of ``BLOCK``.
        previous: The hash of the event before the first one.
        hash: The hash of its last event.
        origin: The id of the first event of the log.
        recorded_at: When its last event was recorded, as text.
        file: Name of the file.
        directory: Where the file was when it was made.
        size: Size of the file, bytes.
        sha256: SHA-256 of the file, in hexadecimal digits.
        blocks: Where the header ends in the file (8 bytes) and ``previous`` (32
            bytes); then the same for each block: its end, and its last hash.
        roots: For each block, the root of the Merkle tree over it (32 bytes).
    """

    first: int
    last: int
    previous: str
    hash: str
    origin: str
    recorded_at: str
    file: str
    directory: str
    size: int
    sha256: str
    blocks: bytes
    roots: bytes

    @property
    def block_roots(self) -> list[bytes]:
        """The root of each block."""
        return [self.roots[at : at + 32] for at in range(0, len(self.roots), 32)]

    def block_of(self, position: int) -> int:
        """Return the number of the block with an event, from 0."""
        return (position - self.first) // BLOCK

    def begin_of(self, block: int) -> tuple[int, str]:
        """Return where a block begins in the file, and the hash before it."""
        entry = self.blocks[block * _ENTRY : (block + 1) * _ENTRY]
        return int.from_bytes(entry[:8], "big"), entry[8:].hex()


class _Header(msgspec.Struct, frozen=True):
    format: str
    log: str
    after: int
    previous: str
    until: int
    hash: str


_decode = msgspec.json.Decoder(Canonical).decode


class ArchiveWriter:
    """Writes the file of an archive, block by block.

    Args:
        target: The file, open for writing.
        origin: The id of the first event of the log.
        first: Position of the first event.
        previous: The hash of the event before it.
        last: Position of the last event.
        hash_: The hash of the last event.
    """

    def __init__(
        self,
        target: BinaryIO,
        *,
        origin: str,
        first: int,
        previous: str,
        last: int,
        hash_: str,
    ) -> None:
        self._target = target
        self._previous = previous
        self._sha256 = hashlib.sha256()
        self._next = first
        self.size = 0
        self.blocks = bytearray()
        header = _Header(FORMAT, origin, first - 1, previous, last, hash_)
        self._write(msgspec.json.encode(header) + b"\n")

    def write(self, events: Sequence[StoredEvent]) -> None:
        """Write a block.

        Raises:
            CorruptLogError: An event does not follow the one before it, or could not be
                read back as it is.
        """
        lines: list[bytes] = []
        for event in events:
            line = canonical_bytes(event)
            self._check(event, line)
            lines.append(line)
        self._write(b"\n".join(lines) + b"\n")

    def _check(self, event: StoredEvent, line: bytes) -> None:
        hash_ = chained_hash(self._previous, line)
        if event.position != self._next or hash_ != event.hash:
            raise CorruptLogError(
                f"event #{event.position}",
                "was changed, or does not follow the event before it",
                "Run: herdbook verify. A damaged log cannot be archived",
            )
        try:
            same = b"\n" not in line and _event(line, hash_) == event
        except (msgspec.MsgspecError, UnicodeError):
            same = False
        if not same:
            raise CorruptLogError(
                f"event #{event.position}",
                "has data that is not JSON on one line",
                "Archive only the events before it",
            )
        self._previous, self._next = hash_, event.position + 1

    def _write(self, data: bytes) -> None:
        # Without name and time: the same events make the same bytes.
        packed = gzip.compress(data, _LEVEL, mtime=0)
        self._target.write(packed)
        self._sha256.update(packed)
        self.size += len(packed)
        self.blocks += self.size.to_bytes(8, "big") + bytes.fromhex(self._previous)

    @property
    def sha256(self) -> str:
        """The SHA-256 of what was written."""
        return self._sha256.hexdigest()


def _event(line: bytes, hash_: str) -> StoredEvent:
    read = _decode(line)
    return StoredEvent(
        read.position,
        read.stream,
        read.version,
        read.event_id,
        read.type,
        read.schema,
        bytes(read.data).decode(),
        read.occurred_at,
        read.recorded_at,
        read.actor,
        read.cause,
        read.correlation_id,
        read.causation_id,
        hash_,
    )


def read_block(
    file: Path,
    archive: Archive,
    block: int,
    keep: Sequence[bytes] = (),
) -> list[StoredEvent]:
    """Read a block, and check it against the hash that it must end with.

    Args:
        file: The file.
        archive: What the log knows about it.
        block: Number of the block, from 0.
        keep: Decode only lines that contain one of these texts; by default all.

    Raises:
        ArchiveMissingError: The file does not exist.
        StoreUnavailableError: It cannot be read.
        DamagedArchiveError: The block was changed, or the file is not that archive.
    """
    (start, hash_), (end, wanted) = archive.begin_of(block), archive.begin_of(block + 1)
    try:
        with file.open("rb") as source:
            source.seek(start)
            packed = source.read(end - start)
    except FileNotFoundError as error:
        raise ArchiveMissingError(
            archive.file, first=archive.first, last=archive.last
        ) from error
    except OSError as error:
        raise StoreUnavailableError(
            f"archive {file}", f"cannot be read: {error.strerror}", "Check its disk"
        ) from error
    try:
        events = list(_events(_unpack(packed), hash_, keep, wanted))
    except (zlib.error, msgspec.MsgspecError, ValueError) as error:
        raise DamagedArchiveError(file, archive, block) from error
    return events


def _unpack(packed: bytes) -> bytes:
    unpacker = zlib.decompressobj(wbits=31)
    data = unpacker.decompress(packed, _LONGEST_BLOCK)
    if not unpacker.eof or unpacker.unused_data:
        raise ValueError("the gzip member is truncated")
    return data


def _events(
    data: bytes, hash_: str, keep: Sequence[bytes], wanted: str
) -> Iterator[StoredEvent]:
    lines = data.split(b"\n")
    if lines.pop() or len(lines) != BLOCK:
        raise ValueError("the block does not have its events")
    found: list[tuple[bytes, str]] = []
    for line in lines:
        hash_ = chained_hash(hash_, line)
        if not keep or any(text in line for text in keep):
            found.append((line, hash_))
    if hash_ != wanted:
        raise ValueError("the block was changed")
    for line, own in found:
        yield _event(line, own)


def is_whole(file: Path, archive: Archive) -> bool:
    """Return whether a file has exactly the bytes of an archive."""
    digest = hashlib.sha256()
    try:
        with file.open("rb") as source:
            while part := source.read(1 << 20):
                digest.update(part)
    except OSError:
        return False
    return digest.hexdigest() == archive.sha256


def find(archive: Archive, directories: Iterable[Path]) -> Path:
    """Return where the file of an archive is.

    A file of another size is returned only if there is no better one: it is damaged,
    or that of another log.

    Raises:
        ArchiveMissingError: It is in none of the directories.
    """
    paths = [directory / archive.file for directory in directories]
    found = [path for path in paths if path.is_file()]
    for path in found:
        if path.stat().st_size == archive.size:
            return path
    if found:
        return found[0]
    raise ArchiveMissingError(archive.file, first=archive.first, last=archive.last)
