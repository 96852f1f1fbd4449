"""Read an export, and check every line of it."""

from __future__ import annotations

import asyncio
import base64
import binascii
import gzip
import io
import json
import zlib
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

import msgspec

from herdbook.core.errors.files import read_remedy
from herdbook.core.errors.validation import violation
from herdbook.core.proof.anchor import Anchor, parse_anchors
from herdbook.core.proof.keys import PublicKey
from herdbook.core.transfer.cloud_events import CloudEvent, source_of, to_stored
from herdbook.core.transfer.contents import BEGIN, END, FORMAT, Contents, Ending
from herdbook.events import rfc9162
from herdbook.events.errors import (
    CallerError,
    CorruptLogError,
    StoreUnavailableError,
)
from herdbook.events.recorded import StoredEvent, canonical_bytes, chained_hash
from herdbook.events.shared.chain import check_link
from herdbook.events.store import Head

LINES = 1000
"""Maximum number of lines that are read, and recorded, at once."""

LONGEST_LINE = 16 << 20
"""Maximum length of a line, bytes: data of 2^20 characters, each as an escape."""

BATCH_BYTES = 8 << 20
"""Bytes of lines after which a batch ends."""

_GZIP = b"\x1f\x8b"
"""What a file that is compressed with gzip starts with (RFC 1952)."""

_T = TypeVar("_T")
_decode = msgspec.json.Decoder(CloudEvent).decode
_encode = msgspec.json.Encoder().encode


class ExportCheck:
    """The checks of an export, line by line.

    Args:
        name: The name of the file, for errors.
        anchors: If there are any, the export must be from the log of one of them, as it
            was then.
        keys: If there are any, one of them must have signed the export's anchor.

    Attributes:
        contents: What the export has, once its first line was read.
        ending: What was read so far; after the last line, how the export ends.
    """

    def __init__(
        self,
        name: str,
        *,
        anchors: Collection[Anchor] = (),
        keys: Collection[PublicKey] = (),
    ) -> None:
        self.name = name
        self.contents: Contents | None = None
        self.ending = Ending()
        self._anchors = anchors
        self._keys = keys
        self._anchor: Anchor | None = None
        self._source = ""
        self._head = Head()
        self._lines = 0
        self._is_ended = False

    def read_line(self, line: bytes) -> StoredEvent | None:
        """Check a line; return its event, or None for the first and the last line.

        Raises:
            CallerError: The file is not an export, or not one of an anchor or key.
            CorruptLogError: The line was changed, or is not the next one.
        """
        self._lines += 1
        try:
            read = _decode(line)
        except (msgspec.MsgspecError, UnicodeError) as error:
            if self.contents is None:
                raise self._not_an_export() from error
            raise self._unreadable(error) from error
        if _encode(read) != line.rstrip() and _repeats_an_attribute(line):
            raise self._damaged("has an attribute twice")
        if read.specversion != "1.0":
            raise self._damaged(
                f"has CloudEvents version {read.specversion!r}, not '1.0'"
            )
        if self.contents is None:
            self._begin(read)
        elif self._is_ended:
            raise self._damaged("follows the end of the export")
        elif read.source != self._source:
            raise self._damaged(f"is from another log, {read.source}")
        elif read.type == END:
            self._end(read)
        else:
            return self._event(read, self.contents)
        return None

    def finish(self) -> None:
        """Check that the export is whole.

        Raises:
            CallerError: The file is empty.
            CorruptLogError: The last line is missing.
        """
        if self.contents is None:
            raise self._not_an_export()
        if not self._is_ended:
            raise CorruptLogError(
                self.name,
                f"ends after #{self.ending.position}, before the end of the export",
                "Copy the whole file, or export again",
            )

    def _begin(self, line: CloudEvent) -> None:
        if line.type != BEGIN:
            raise self._not_an_export()
        contents = self._data(line, Contents)
        if contents.format != FORMAT:
            raise CallerError(
                self.name,
                f"has the format {contents.format!r}",
                f"This version reads {FORMAT}. Use a newer version of Herdbook",
            )
        if not contents.is_consistent:
            raise self._damaged("contradicts itself")
        if contents.anchor:
            (self._anchor,) = parse_anchors(contents.anchor, source=self.name)
            if (self._anchor.origin, self._anchor.position, self._anchor.hash) != (
                line.source,
                contents.position,
                contents.hash,
            ):
                raise self._damaged("does not match its anchor")
        elif not contents.complete:
            raise self._damaged("has no anchor")
        self._check_trust()
        self._source = line.source
        self._head = Head(contents.after, contents.previous)
        self.contents = contents

    def _check_trust(self) -> None:
        """Compare the anchor of the export with what the caller trusts."""
        if not self._anchors and not self._keys:
            return
        if self._anchor is None:
            raise CallerError(
                self.name,
                "has no anchor",
                "Create the export with --key, so that it is signed",
            )
        if self._keys and not any(key.has_signed(self._anchor) for key in self._keys):
            raise CallerError(self.name, "is not signed by any of the given keys")
        same = (
            (each.origin, each.position, each.root, each.hash) for each in self._anchors
        )
        mine = self._anchor
        if (
            self._anchors
            and (mine.origin, mine.position, mine.root, mine.hash) not in same
        ):
            raise CallerError(
                self.name,
                f"does not match an anchor that was given: it ends at #{mine.position}",
            )

    def _event(self, line: CloudEvent, contents: Contents) -> StoredEvent:
        try:
            event = to_stored(line)
        except (ValueError, UnicodeError) as error:
            raise self._unreadable(error) from error
        last = max(self.ending.position, contents.after)
        name = f"event #{event.position}"
        if not last < event.position <= contents.until:
            raise self._damaged("is not the next event", name)
        if not contents.selection.includes(event):
            raise self._damaged(
                "does not match the streams and types of the first line", name
            )
        if event.position == 1 and line.source != source_of(event.event_id):
            raise self._damaged("has the first event of another log")
        if not contents.has_gaps:
            try:
                self._head = check_link(event, self._head)
            except CallerError as error:
                raise self._damaged(error.state, error.subject) from error
        if not contents.complete:
            self._check_proof(line, event)
        self.ending = Ending(
            events=self.ending.events + 1, position=event.position, hash=event.hash
        )
        return event

    def _check_proof(self, line: CloudEvent, event: StoredEvent) -> None:
        """Check that the event is in the log of the anchor."""
        assert self._anchor is not None  # checked in _begin
        try:
            raw = base64.b64decode(line.inclusion or "", validate=True)
            hash_ = chained_hash(line.previoushash, canonical_bytes(event))
            leaf = rfc9162.leaf_hash(bytes.fromhex(event.hash))
        except (binascii.Error, ValueError, UnicodeError) as error:
            raise self._unreadable(error) from error
        path = [raw[at : at + 32] for at in range(0, len(raw), 32)]
        root = rfc9162.root_from_inclusion(
            leaf, event.position - 1, self._anchor.position, path
        )
        if hash_ != event.hash or root != self._anchor.root:
            raise self._damaged(
                "was changed, or is not in the log of the anchor",
                f"event #{event.position}",
            )

    def _end(self, line: CloudEvent) -> None:
        found = self._data(line, Ending)
        if found != self.ending:
            raise self._damaged(
                f"gives {found.events:,} events up to #{found.position}, but the file "
                f"has {self.ending.events:,} up to #{self.ending.position}"
            )
        contents = self.contents
        if contents and not contents.has_gaps and self._head.position != contents.until:
            raise self._damaged(
                f"is the end, but the events end before #{contents.until}"
            )
        if contents and contents.complete and found.hash != contents.hash:
            raise self._damaged("does not match the first line")
        self._is_ended = True

    def _data(self, line: CloudEvent, kind: type[_T]) -> _T:
        try:
            raw = b"" if line.data is msgspec.UNSET else bytes(line.data)
            return msgspec.json.decode(raw, type=kind)
        except (msgspec.MsgspecError, UnicodeError) as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> CorruptLogError:
        return self._damaged(f"cannot be read: {violation(str(error)).text('it')}")

    def _damaged(self, state: str, subject: str = "") -> CorruptLogError:
        line = f"{self.name}, line {self._lines}"
        return CorruptLogError(
            f"{line}: {subject}" if subject else f"{line},",
            state,
            "Copy the file, or export again",
        )

    def _not_an_export(self) -> CallerError:
        return CallerError(
            self.name, "is not an export", "Use a file that herdbook export wrote"
        )


def _repeats_an_attribute(line: bytes) -> bool:
    """Return whether programs may differ in what they read in a valid line."""
    try:
        names = [name for name, _ in json.loads(line, object_pairs_hook=list)]
    except (ValueError, RecursionError):  # other programs may fail as well
        return True
    return len(names) != len(set(names))


async def read_export(
    file: BinaryIO, check: ExportCheck
) -> AsyncIterator[list[StoredEvent]]:
    """Read an export in batches of checked events; use bounded memory.

    Args:
        file: The file, at its beginning.
        check: The checks; ``check.contents`` is set before the first batch.

    Raises:
        CallerError: As ``ExportCheck``.
        CorruptLogError: As ``ExportCheck``; earlier batches were sound.
        StoreUnavailableError: The file cannot be read.
    """
    while lines := await asyncio.to_thread(_read_lines, file, check.name):
        taken = (check.read_line(line) for line in lines)
        yield [event for event in taken if event is not None]
    check.finish()


async def read_first(
    batches: AsyncIterator[list[StoredEvent]],
) -> AsyncIterator[list[StoredEvent]]:
    """Read the first batch of an export; return all batches.

    What is wrong with the beginning is raised here, and ``check.contents`` is known.
    """
    first = await anext(batches, None)

    async def again() -> AsyncIterator[list[StoredEvent]]:
        if first is not None:
            yield first
            async for batch in batches:
                yield batch

    return again()


@contextmanager
def open_export(file: Path | io.BufferedReader) -> Iterator[BinaryIO]:
    """Open an export, compressed or not; it may be a pipe.

    Args:
        file: The file, or the standard input.

    Raises:
        CallerError: The file cannot be read.
    """
    with ExitStack() as stack:
        try:
            if isinstance(file, Path):
                raw = stack.enter_context(file.open("rb"))
            else:
                raw = file
            is_compressed = raw.peek(len(_GZIP)).startswith(_GZIP)
        except OSError as error:
            raise CallerError(
                str(file) if isinstance(file, Path) else "standard input",
                f"cannot be read: {error.strerror or error}",
                read_remedy(error),
            ) from error
        if is_compressed:
            yield cast("BinaryIO", stack.enter_context(gzip.open(raw)))
        else:
            yield raw


def _read_lines(file: BinaryIO, name: str) -> Sequence[bytes]:
    try:
        return _next_lines(file, name)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CorruptLogError(
            name, f"is damaged: {error}", "Copy the whole file, or export again"
        ) from error
    except OSError as error:
        raise StoreUnavailableError(
            name, f"cannot be read: {error.strerror or error}", "Check the disk"
        ) from error


def _next_lines(file: BinaryIO, name: str) -> Sequence[bytes]:
    lines: list[bytes] = []
    size = 0
    while len(lines) < LINES and size < BATCH_BYTES:
        line = file.readline(LONGEST_LINE + 1)
        if not line:
            break
        if len(line) > LONGEST_LINE:
            raise CallerError(
                name,
                f"has a line of more than {LONGEST_LINE >> 20} MiB",
                "Use a file that herdbook export wrote",
            )
        lines.append(line)
        size += len(line)
    return lines
