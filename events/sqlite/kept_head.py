"""The saved head: a file next to a log with the last known end of the log.

A log that lost its end is still consistent: no hash shows that events followed. The
file ``herd.db-head`` shows it. It has one line, ``position:hash``, the format of
``herdbook verify --anchor``. It is written when the log is closed, and every second
while there are commits. Its position never decreases, whichever process writes it.

A log that contradicts its saved head can be opened. The saved head is the only evidence
of the loss, so it does not change until the user accepts the loss.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

from herdbook.events.errors import StoreError, StoreUnavailableError
from herdbook.events.shared.cancellation import end
from herdbook.events.sqlite.log_file import log_file_path
from herdbook.events.store import Head

KEEP_EVERY_S = 1.0
"""Interval between two writes while there are commits, seconds."""

IDLE_S = 5.0
"""Time without a commit after which the log is idle, seconds."""

_ATTEMPTS = 50
_RETRY_S = 0.01
"""Number of attempts to get the lock of the file, and seconds between two of them."""

_LINE = re.compile(r"([1-9][0-9]{0,17}):([0-9a-f]{64})\n")


class KeptHead:
    """The file with the saved head of a log.

    Args:
        log: Path of the log.
    """

    def __init__(self, log: Path) -> None:
        self.path = log_file_path(log, "-head")
        self._new = log_file_path(log, "-head.new")

    def read(self) -> Head | None:
        """Return the saved head; None if it is missing or cannot be read."""
        try:
            text = self.path.read_text("ascii")
        except (OSError, UnicodeError):
            return None
        found = _LINE.fullmatch(text)
        return Head(int(found[1]), found[2]) if found else None

    @property
    def is_damaged(self) -> bool:
        """Whether the file exists but does not contain a head."""
        return self.path.exists() and self.read() is None

    def advance(self, head: Head) -> None:
        """Write a head, unless the saved head is at the same position or later.

        Errors are ignored: if the file cannot be written, the previous head stays.
        """
        self._write(head, partial(_is_ahead, head))

    def is_behind(self, head: Head) -> bool:
        """Return whether ``advance`` would write."""
        return head.position > 0 and _is_ahead(head, self.read())

    def replace(self, head: Head) -> None:
        """Write a head, whatever the saved head is: the loss of events is accepted.

        The file of an empty log is removed.
        """
        if not head.position:
            with suppress(OSError):
                self.path.unlink(missing_ok=True)
        self._write(head, lambda kept: kept != head)

    def _write(self, head: Head, is_due: Callable[[Head | None], bool]) -> None:
        if not _LINE.fullmatch(_line(head)):  # an empty log, or a damaged head row
            return
        with suppress(OSError):
            for _ in range(_ATTEMPTS):
                if not is_due(self.read()):
                    return
                if self._write_locked(head, is_due):
                    return
                time.sleep(_RETRY_S)

    def _write_locked(self, head: Head, is_due: Callable[[Head | None], bool]) -> bool:
        """Write under a lock; return False if another process holds the lock.

        The lock is on the new file, which then replaces the old one. Callers wait a
        limited time, since a fork of a writer may hold the lock until it ends.
        """
        descriptor = os.open(self._new, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_at(self._new, descriptor):  # renamed before it was locked
                return False
            if not is_due(self.read()):
                self._new.unlink()
                return True
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, _line(head).encode(), 0)
            os.fsync(descriptor)
            self._new.replace(self.path)
        except BlockingIOError:
            return False
        else:
            return True
        finally:
            os.close(descriptor)


def _is_ahead(head: Head, kept: Head | None) -> bool:
    return kept is None or kept.position < head.position


def _line(head: Head) -> str:
    return f"{head.position}:{head.hash}\n"


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def contradiction(kept: Head, hash_there: str | None, end: int) -> str:
    """Describe how a log contradicts its saved head; empty if it does not.

    Args:
        kept: The saved head, which must be read before the log.
        hash_there: Hash of the event of the log at that position, if there is one.
        end: Position of the last event of the log.
    """
    if hash_there == kept.hash:
        return ""
    if end < kept.position:
        lost = kept.position - end
        missing = "1 recorded event is" if lost == 1 else f"{lost} recorded events are"
        return (
            f"the log ends at #{end}, but it had reached #{kept.position} "
            f"({kept.hash[:8]}…): {missing} missing"
        )
    return (
        f"event #{kept.position} is not the event that was recorded at this position "
        f"({kept.hash[:8]}…): the end of the log was lost and written again, or "
        "another log replaced this one"
    )


class HeadKeeper:
    """Writes the saved head of an open log, in a task and a thread of its own.

    Args:
        kept: The file to write.
        when_idle: Called after some time without commits.

    Attributes:
        failure: Unexpected error of the last attempt; None if it succeeded.
    """

    def __init__(
        self, kept: KeptHead, when_idle: Callable[[], Awaitable[None]]
    ) -> None:
        self.failure: StoreError | None = None
        self._kept = kept
        self._when_idle = when_idle
        self._head = Head()
        self._moved = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="herdbook head")
        self._task: asyncio.Task[None] | None = None

    def note(self, head: Head) -> None:
        """Schedule a head to be written, about a second later."""
        self._head = max(self._head, head)
        self._moved.set()
        if self._task is None:
            self._task = asyncio.create_task(self._keep(), name="herdbook kept head")

    async def _keep(self) -> None:
        while True:
            await self._moved.wait()
            await asyncio.sleep(KEEP_EVERY_S)
            self._moved.clear()
            try:
                await self._write(self._kept.advance, self._head)
                if await self._is_idle():
                    await self._when_idle()
            except Exception as error:  # noqa: BLE001 - the next commit tries again
                self.failure = StoreUnavailableError(
                    str(self._kept.path), f"cannot be written: {error!r}"
                )
            else:
                self.failure = None

    async def _is_idle(self) -> bool:
        """Wait for the next commit; return True if there was none for some time."""
        try:
            await asyncio.wait_for(self._moved.wait(), IDLE_S)
        except TimeoutError:
            return True
        return False

    async def close(self, head: Head | None) -> None:
        """Write the last head, if given, and end the task and the thread."""
        if self._task:
            await end(self._task)
        if head is not None and self._kept.is_behind(head):
            await self._write(self._kept.advance, head)
        self._thread.shutdown()

    async def replace(self, head: Head) -> None:
        """Write a head, whatever the saved head is."""
        await self._write(self._kept.replace, head)

    async def _write(self, write: Callable[[Head], None], head: Head) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, write, head)
