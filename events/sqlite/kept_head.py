"""The kept head: how far a log had come, written next to it.

A log that lost its end is whole in itself: no hash shows that something followed.
``herd.db-head`` says so: one line, ``position:hash``, as ``herdbook verify --anchor``
takes it. It is written when the log is closed, and every second while there are
commits. It never moves backwards, whichever process writes it.

A log that contradicts its kept head opens, and the kept head stays as it is until the
user accepts the loss: it is the only evidence.
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
from herdbook.events.sqlite.log_file import beside
from herdbook.events.store import Head

KEEP_EVERY_S = 1.0
"""Seconds between two writes while there are commits."""

IDLE_S = 5.0
"""Seconds without a commit after which the log is idle."""

_TURNS = 50
_TURN_S = 0.01
"""How often, and every how many seconds, another writer's turn is waited for."""

_LINE = re.compile(r"([1-9][0-9]{0,17}):([0-9a-f]{64})\n")


class KeptHead:
    """The file that keeps the head of a log.

    Args:
        log: The log.
    """

    def __init__(self, log: Path) -> None:
        self.path = beside(log, "-head")
        self._new = beside(log, "-head.new")

    def read(self) -> Head | None:
        """Return what was kept; None if there is nothing, or nothing readable."""
        try:
            text = self.path.read_text("ascii")
        except (OSError, UnicodeError):
            return None
        found = _LINE.fullmatch(text)
        return Head(int(found[1]), found[2]) if found else None

    @property
    def is_damaged(self) -> bool:
        """Whether there is a file, but not one with a head in it."""
        return self.path.exists() and self.read() is None

    def advance(self, head: Head) -> None:
        """Keep a head, unless one at least as far is kept.

        It is a help and not a promise: where it cannot be written, nothing is raised,
        and the one before stays.
        """
        self._write(head, partial(_is_ahead, head))

    def is_behind(self, head: Head) -> bool:
        """Return whether ``advance`` would write."""
        return head.position > 0 and _is_ahead(head, self.read())

    def replace(self, head: Head) -> None:
        """Keep a head whatever was kept before: what is missing is accepted.

        For an empty log, nothing is kept.
        """
        if not head.position:
            with suppress(OSError):
                self.path.unlink(missing_ok=True)
        self._write(head, lambda kept: kept != head)

    def _write(self, head: Head, is_due: Callable[[Head | None], bool]) -> None:
        if not _LINE.fullmatch(_line(head)):  # nothing to keep, or a damaged head row
            return
        with suppress(OSError):
            for _ in range(_TURNS):
                if not is_due(self.read()):
                    return
                if self._take_turn(head, is_due):
                    return
                time.sleep(_TURN_S)

    def _take_turn(self, head: Head, is_due: Callable[[Head | None], bool]) -> bool:
        """Write, if nobody else is writing; return whether it was this one's turn.

        The lock is on the new file, which then gets the name of the old one. Waiting
        for it is bounded, since a fork of a writer would hold it for ever.
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
    """Return in words how a log contradicts its kept head; empty if it does not.

    Args:
        kept: What was kept, read before the log was.
        hash_there: The hash of the log's event at the kept position, if it has one.
        end: Position of the last event of the log.
    """
    if hash_there == kept.hash:
        return ""
    if end < kept.position:
        lost = kept.position - end
        return (
            f"the log ends at #{end}, but it had reached #{kept.position} "
            f"({kept.hash[:8]}…): {lost} recorded events are missing"
        )
    return (
        f"event #{kept.position} is not the one that was recorded there "
        f"({kept.hash[:8]}…): the end of the log was lost and written again, or "
        "another log is in its place"
    )


class HeadKeeper:
    """Keeps the head of an open log, in a task and a thread of its own.

    Args:
        kept: Where.
        when_idle: Called once there were no commits for a while.

    Attributes:
        failure: Why the last attempt failed unexpectedly; None if it did not.
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
        """Note a commit: the head is kept within a second or so."""
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
        """Wait for the next commit; return whether there was none for a while."""
        try:
            await asyncio.wait_for(self._moved.wait(), IDLE_S)
        except TimeoutError:
            return True
        return False

    async def close(self, head: Head | None) -> None:
        """Keep the last head, if there is one to keep, and end task and thread."""
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        if head is not None and self._kept.is_behind(head):
            await self._write(self._kept.advance, head)
        self._thread.shutdown()

    async def replace(self, head: Head) -> None:
        """Keep a head whatever was kept before."""
        await self._write(self._kept.replace, head)

    async def _write(self, write: Callable[[Head], None], head: Head) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, write, head)
