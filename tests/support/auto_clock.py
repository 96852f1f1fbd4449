"""A clock that advances by itself, for a sandbox server and its managers.

Invariant: time passes only while everything waits for it. When no task of the loop
can run, no bytes are in transit between client and server, and no thread of a log or
of an executor has work, the clock advances to the next timer. Hours pass in
milliseconds, and a slow machine does not change the result.
"""

from __future__ import annotations

import asyncio
import fcntl
import linecache
import selectors
import sys
import termios
import threading
from array import array
from collections.abc import AsyncIterator
from concurrent.futures import thread as executor_threads
from contextlib import asynccontextmanager
from datetime import datetime
from queue import SimpleQueue
from types import FrameType
from typing import Any
from weakref import WeakSet

import aiosqlite.core

from herdbook import sandbox
from herdbook.core.clock import Timeout

_AIOSQLITE = aiosqlite.core.__file__
_WAITING_CALLS = {_AIOSQLITE: "tx.get(", executor_threads.__file__: "work_queue.get("}
"""The files of threads that take work from a queue, and the call that waits for it."""

# What threads were asked for and have not answered. The stack of a thread does not show
# whether it has just taken its work, or has not reported its result yet.
_asked: WeakSet[asyncio.Future[Any]] = WeakSet()


class _NotedWork(SimpleQueue[Any]):
    """The queue of a thread of aiosqlite, which notes what the thread is asked for."""

    def put_nowait(self, item: Any) -> None:
        if item[0] is not None:
            _asked.add(item[0])
        super().put_nowait(item)


aiosqlite.core.SimpleQueue = _NotedWork  # type: ignore[attr-defined]


class AutoClock(sandbox.ManualClock):
    """The clock of the sandbox server, which advances by itself.

    Attributes:
        stride_s: Longest step in seconds, shorter than any timeout of the manager. A
            shorter one records more intermediate progress.
        min_stride_s: Shortest step in seconds. With a longer one, long quiet times pass
            faster, and timers that are due earlier fire at its end.
    """

    stride_s = 5.0
    min_stride_s = 0.0

    def advance_to_next_timer(self) -> bool:
        """Advance towards the next timer, or the next soft one if there is no other."""
        timers = [timer for _, _, timer in self._timers if timer.call is not None]
        due = [one.when for one in timers if not one.soft]
        due = due or [one.when for one in timers]
        if due:
            step = max(min(due) - self.now(), self.min_stride_s)
            self.advance(min(step, self.stride_s))
        return bool(due)

    async def run(self) -> None:
        """Advance whenever everything waits, until cancelled."""
        while True:
            await _all_waiting()
            if not self.advance_to_next_timer():
                await asyncio.sleep(0.0005)


@asynccontextmanager
async def advancing(time: AutoClock) -> AsyncIterator[None]:
    """Let a clock advance by itself while the block runs."""
    passing = asyncio.create_task(time.run(), name="time")
    loop = asyncio.get_running_loop()
    run_in_executor = loop.run_in_executor

    def noted(*call: Any) -> asyncio.Future[Any]:
        future = run_in_executor(*call)
        _asked.add(future)
        return future

    loop.run_in_executor = noted  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        loop.run_in_executor = run_in_executor  # type: ignore[method-assign]
        passing.cancel()
        await asyncio.wait([passing])


class ManagerClock:
    """The clock of the sandbox server, in the form that a manager takes."""

    def __init__(self, time: AutoClock) -> None:
        self._time = time

    def now(self) -> datetime:
        return self._time.wall(self._time.now())

    def monotonic(self) -> float:
        return self._time.now()

    async def sleep(self, seconds: float) -> None:
        reached = asyncio.Event()
        timer = self._time.call_later(seconds, reached.set)
        try:
            await reached.wait()
        finally:
            timer.cancel()

    def timeout(self, seconds: float) -> Timeout:
        return Timeout(lambda expire: self._time.call_later(seconds, expire).cancel)


async def _all_waiting() -> None:
    """Return once no task can run, no bytes are in transit and no thread has work."""
    loop = vars(asyncio.get_running_loop())
    while True:
        await asyncio.sleep(0)
        if loop["_ready"]:
            continue
        if not _in_transit(loop) and not _a_thread_has_work() and not loop["_ready"]:
            return
        await asyncio.sleep(0.0001)


def _in_transit(loop: dict[str, Any]) -> bool:
    """Return whether bytes, or the end of a connection, are still unread.

    Both ends of every connection are in this loop. A machine under load delivers
    late even to itself.
    """
    watched = list(loop["_selector"].get_map().values())
    if any(key.events & selectors.EVENT_WRITE for key in watched):
        return True  # still connecting, or still sending
    reading = {key.fd for key in watched}
    ends = {
        (one.get_extra_info("sockname"), one.get_extra_info("peername")): fd
        for fd, one in list(loop["_transports"].items())
        if not one.is_closing()
    }
    return any(
        (there, here) not in ends
        or _queued(fd, termios.FIONREAD)
        or _queued(ends[there, here], termios.TIOCOUTQ)
        for (here, there), fd in ends.items()
        if fd in reading
    )


def _queued(fd: int, which: int) -> int:
    """Return the bytes of a socket that are unread or undelivered."""
    count = array("i", [0])
    fcntl.ioctl(fd, which, count)
    return count[0]


def _a_thread_has_work() -> bool:
    """Return whether a thread of SQLite or of an executor has work.

    Also if nobody waits for it any more, because the caller was cancelled.
    """
    loop = asyncio.get_running_loop()
    if any(one.get_loop() is loop and not one.done() for one in list(_asked)):
        return True
    executors = list(executor_threads._threads_queues.items())
    if any(thread.is_alive() and queue.qsize() for thread, queue in executors):
        return True  # a thread that is starting, or has not taken its work yet
    here = threading.get_ident()
    return any(
        _is_working(frame)
        for thread, frame in sys._current_frames().items()
        if thread != here
    )


def _is_working(top: FrameType) -> bool:
    """Return whether a thread takes work from a queue, and is not waiting for some."""
    frame: FrameType | None = top
    outermost: FrameType | None = None
    while frame is not None:
        if frame.f_code.co_filename in _WAITING_CALLS:
            outermost = frame
        frame = frame.f_back
    if outermost is None:
        return False
    file = outermost.f_code.co_filename
    line = linecache.getline(file, top.f_lineno)
    if outermost is not top or _WAITING_CALLS[file] not in line:
        return True
    return file == _AIOSQLITE and bool(outermost.f_locals["tx"].qsize())
