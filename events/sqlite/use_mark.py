"""The mark of a log in use: it shows that a copy of the file lacks its ``-wal``.

Commits are in the ``-wal`` first. A copy of the main file alone is therefore a sound,
but older log. The first append of a process puts a mark with the inode of the file into
the main file. It is removed when the log is idle or closed, if no other process uses
it. So a file without a ``-wal``, but with the mark of another file, was copied while
the log was in use.

The mark is a row of the table ``views``, without a schema of its own: versions that do
not know it ignore it.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from herdbook.events.errors import StoreError
from herdbook.events.sqlite.connection import connected
from herdbook.events.sqlite.log_file import log_file_path
from herdbook.events.sqlite.session import Session
from herdbook.events.sqlite.wal import is_in_use

_COPY = 1
"""The version of a mark that was found in a copy; it stays until that is accepted."""


class UseMark:
    """The mark of an open log.

    Args:
        path: Resolved path of the log.
        writing: The connection for writes; calls take turns with appends.
    """

    def __init__(self, path: Path, writing: Session) -> None:
        self._path = path
        self._writing = writing
        self._is_set = False
        self._was_set = False

    async def set(self) -> None:
        """Put the mark into the main file, unless this process has done so.

        Raises:
            StoreError: It was not set.
        """
        if self._is_set:
            return
        await self._writing.run("set_use_mark", inode=_inode(self._path))
        self._is_set = True
        with suppress(StoreError):  # a reader may prevent it
            await self._writing.run("checkpoint")

    async def remove(self) -> None:
        """Remove the mark, unless another process uses the log.

        Raises:
            StoreError: It was not removed.
        """
        is_there = self._is_set or self._was_set
        if not is_there or is_in_use(self._path, by_others=True):
            return
        self._is_set = self._was_set = False
        await self._writing.run("remove_use_mark")

    async def remove_after_close(self) -> None:
        """Remove the mark if other processes closed the log at the same time.

        Raises:
            StoreError: It was not removed.
        """
        if (self._is_set or self._was_set) and not is_in_use(self._path):
            async with connected(self._path, "mode=rw") as session:
                await session.run("remove_use_mark")

    async def missing(self, *, had_wal: bool, keep: bool) -> str:
        """Describe what is missing in a copy; empty for a log that is not one.

        Args:
            had_wal: Whether there was a ``-wal`` before the log was opened.
            keep: Whether the result is kept in the log for later opens.
        """
        rows = await self._writing.run("use_mark")
        missing = missing_in_copy(rows, self._path, had_wal=had_wal)
        if missing and keep:
            with suppress(StoreError):  # a full disk: the next open finds it again
                await self._writing.run("mark_copy")
        self._was_set = bool(rows)  # by another process, or one that was killed
        return missing

    async def accept(self) -> None:
        """Forget that the log is a copy."""
        await self._writing.run("remove_use_mark")


def has_wal(path: Path) -> bool:
    """Return whether there is a ``-wal`` next to a log, even an empty one."""
    return log_file_path(path, "-wal").exists()


def missing_in_copy(
    rows: Iterable[tuple[Any, ...]], path: Path, *, had_wal: bool
) -> str:
    """Describe what is missing in a copy; empty for a log that is not one.

    Args:
        rows: The result of the query ``use_mark``.
        path: The log.
        had_wal: Whether there was a ``-wal`` before the log was opened.
    """
    for version, inode, position in rows:
        if version == _COPY or not (had_wal or inode == _inode(path)):
            events = f"any events after #{position}" if position else "its events"
            return (
                "the file was copied while the log was in use, without its -wal: "
                f"{events} are missing"
            )
    return ""


def _inode(path: Path) -> str:
    return str(log_file_path(path).stat().st_ino)
