"""Queries that also find archived events: in the files of the archives.

Another process may archive events between two queries. So each answer is checked: a
page that does not begin with the next event is completed from the archives.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from herdbook.events import archive_file
from herdbook.events.archive_file import BLOCK, Archive, Row
from herdbook.events.recorded import StoredEvent
from herdbook.events.sqlite.session import Connection, Session

DIRECTORY = "HERDBOOK_ARCHIVES"
"""Environment variable with a directory of archives that were moved."""

_CACHED_BLOCKS = 8
"""Number of decompressed blocks in memory: 0.5 MB each."""

_CACHED_STREAMS = 64

_Keep = Callable[[StoredEvent], bool]


def _everything(_: StoredEvent) -> bool:
    return True


class ArchivedSession(Session):
    """A connection whose pages of events include archived ones.

    Args:
        connection: The connection.
        subject: The log, for errors.
        archive_directory: The directory in which archives are looked for.
    """

    def __init__(
        self, connection: Connection, subject: str, archive_directory: Path
    ) -> None:
        super().__init__(connection, subject)
        self._archive_directory = archive_directory
        self._archives: list[Archive] = []
        self._cache: dict[int, list[StoredEvent]] = {}
        self._read_to: dict[tuple[str, int], int] = {}

    async def run(self, query: str, /, **parameters: object) -> Sequence[Row]:
        """Run a query by its name and return its rows, also those that are archived.

        Raises:
            ArchiveMissingError: Rows are in an archive that is missing.
            CorruptLogError: They are in an archive that was changed.
        """
        rows = await super().run(query, **parameters)
        match query:
            case "log":
                return await self._log(rows, **parameters)  # type: ignore[arg-type]
            case "filtered_log":
                return await self._filtered(rows, **parameters)  # type: ignore[arg-type]
            case "stream":
                return await self._stream(rows, **parameters)  # type: ignore[arg-type]
            case "events_by_id":
                return await self._by_id(rows, **parameters)  # type: ignore[arg-type]
        return rows

    async def archives(self) -> list[Archive]:
        """Return the archives of the log, in order."""
        boundary = await self.boundary()
        if boundary != (self._archives[-1].last if self._archives else 0):
            rows = await self.run("archives")
            fields = Archive.__struct_fields__
            self._archives = [
                Archive(**dict(zip(fields, row, strict=True))) for row in rows
            ]
        return self._archives

    async def boundary(self) -> int:
        """Return the position of the last archived event; 0 if there is none."""
        boundary: int = (await self.run("boundary"))[0][0]
        return boundary

    def path_of(self, archive: Archive) -> Path:
        """Return where the file of an archive is.

        Raises:
            ArchiveMissingError: It is not found.
        """
        named = os.environ.get(DIRECTORY)
        places = [Path(named)] if named else []
        places += [self._archive_directory, Path(archive.directory)]
        return archive_file.find(archive, places)

    async def event(self, position: int) -> StoredEvent | None:
        """Return an archived event; None if it is after the boundary."""
        found = await self._read(position - 1, 1)
        return found[0] if found else None

    async def _log(
        self, rows: Sequence[Row], *, after: int, limit: int
    ) -> Sequence[Row]:
        # The last event of a log is never archived: without rows there is no gap.
        if not rows or rows[0][0] == after + 1 or after >= await self.boundary():
            return rows
        return _joined(await self._read(after, limit), rows, limit)

    async def _filtered(
        self,
        rows: Sequence[Row],
        *,
        after: int,
        limit: int,
        prefix: str,
        types: str | None,
    ) -> Sequence[Row]:
        if after >= await self.boundary():
            return rows
        wanted = None if types is None else frozenset(msgspec.json.decode(types))
        texts = (
            # Without the closing quote.
            [b'"stream":' + msgspec.json.encode(prefix)[:-1]]
            if wanted is None
            else [b'"type":' + msgspec.json.encode(each) for each in sorted(wanted)]
        )

        def keep(event: StoredEvent) -> bool:
            return event.stream.startswith(prefix) and (
                wanted is None or event.type in wanted
            )

        if wanted is not None and not wanted:
            return rows
        return _joined(await self._read(after, limit, keep, texts), rows, limit)

    async def _stream(
        self, rows: Sequence[Row], *, stream: str, after: int, limit: int
    ) -> Sequence[Row]:
        if rows and rows[0][2] == after + 1:
            return rows
        found = await self.run("archived_stream", stream=stream)
        if not found or found[0][0] <= after:
            return rows

        def keep(event: StoredEvent) -> bool:
            return event.stream == stream and event.version > after

        start = self._read_to.get((stream, after), 0)
        texts = [b'"stream":' + msgspec.json.encode(stream)]
        events = await self._read(start, limit, keep, texts)
        if events:
            self._read_to[stream, events[-1].version] = events[-1].position
            while len(self._read_to) > _CACHED_STREAMS:
                del self._read_to[next(iter(self._read_to))]
        return _joined(events, rows, limit)

    async def _by_id(self, rows: Sequence[Row], *, ids: str) -> Sequence[Row]:
        known = {row[0] for row in rows}
        found = await self.run("archived_ids", ids=ids)
        events = [
            await self.event(position) for (position,) in found if position not in known
        ]
        return [*rows, *(_row(event) for event in events if event)]

    async def _read(
        self,
        after: int,
        limit: int,
        keep: _Keep = _everything,
        texts: Sequence[bytes] = (),
    ) -> list[StoredEvent]:
        """Read archived events after a position.

        Args:
            after: The position.
            limit: Most events to return.
            keep: Returns whether an event is wanted.
            texts: Each wanted event has one of them in its line; () for any.
        """
        found: list[StoredEvent] = []
        for archive in await self.archives():
            if archive.last <= after:
                continue
            block = archive.block_of(max(after + 1, archive.first))
            path = self.path_of(archive)
            while archive.first + block * BLOCK <= archive.last:
                for event in await self._block(path, archive, block, texts):
                    if event.position > after and keep(event):
                        found.append(event)
                        if len(found) == limit:
                            return found
                block += 1
        return found

    async def _block(
        self, path: Path, archive: Archive, block: int, texts: Sequence[bytes]
    ) -> list[StoredEvent]:
        """Return the events of a block, or only those whose lines have a text."""
        first = archive.first + block * BLOCK
        if (events := self._cache.pop(first, None)) is None:
            events = await asyncio.to_thread(
                archive_file.read_block, path, archive, block, texts
            )
            if texts:
                return events
            if events[0].position != first:
                raise archive_file.DamagedArchiveError(path, archive, block)
        self._cache[first] = events
        while len(self._cache) > _CACHED_BLOCKS:
            del self._cache[next(iter(self._cache))]
        return events


def _row(event: StoredEvent) -> Row:
    return msgspec.structs.astuple(event)


def _joined(
    events: Sequence[StoredEvent], rows: Sequence[Row], limit: int
) -> Sequence[Row]:
    """Return archived events, then the rows after them."""
    found = [_row(event) for event in events]
    last = found[-1][0] if found else 0
    return [*found, *(row for row in rows if row[0] > last)][:limit]
