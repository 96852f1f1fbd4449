"""Stop a program on SIGTERM or SIGINT within a limited time, whatever it is doing."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

from herdbook.core.logging import Logger

STOP_WITHIN_S: Final = 10.0
"""Seconds from the signal until the process has ended."""

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

_log = Logger("herdbook.stopping")


class Stop:
    """Whether a program has to stop.

    Attributes:
        requested: Set when it has to stop.
    """

    def __init__(self, task: asyncio.Task[object]) -> None:
        self.requested = asyncio.Event()
        self._task = task
        self._started = False

    def started(self) -> None:
        """Note that the program serves; from now on it waits for ``requested``."""
        self._started = True

    def request(self) -> None:
        """Let the program stop. While it starts, its task is cancelled."""
        if not self.requested.is_set():
            self.requested.set()
            if not self._started:
                self._task.cancel()

    def ended_start(self) -> bool:
        """Return whether the start was cancelled by a request, and take that back."""
        if self._started or not self.requested.is_set():
            return False
        return self._task.uncancel() == 0


@contextmanager
def stoppable(within_s: float = STOP_WITHIN_S) -> Iterator[Stop]:
    """Stop the program in the block, the running task, on SIGTERM or SIGINT.

    A stop that takes too long ends the process like a crash, with exit code 1: the log
    is consistent, and the next start records what was interrupted. That also holds for
    what follows the block, such as a thread that waits for a name server. Nothing is
    raised if a start is cancelled by a signal.

    Args:
        within_s: Seconds from the signal until the process has ended.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    stop = Stop(task)
    watching = threading.Event()

    # Called between two instructions, also while one step blocks the event loop.
    def handle(number: int, _: FrameType | None) -> None:
        if not watching.is_set():
            watching.set()
            _after(within_s, _end, signal.Signals(number))
        loop.call_soon_threadsafe(stop.request)

    before = {}
    for number in _SIGNALS:
        loop.remove_signal_handler(number)
        before[number] = signal.signal(number, handle)
    try:
        yield stop
    except asyncio.CancelledError:
        if not stop.ended_start():
            raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _after(seconds: float, call: Callable[[Any], object], argument: object) -> None:
    timer = threading.Timer(seconds, call, (argument,))
    timer.daemon = True
    timer.start()


def _end(number: signal.Signals) -> None:
    _after(1.0, os._exit, 1)  # the line below waits where nobody reads stderr
    _log.warning("not_stopped_in_time", signal=number.name)
    os._exit(1)
