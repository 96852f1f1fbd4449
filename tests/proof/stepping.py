"""Cancel a coroutine at each turn of the event loop, one after another.

A turn is one round of callbacks, so some turn meets every await of the coroutine and of
every task that it waits for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

TIMEOUT_S = 20.0
"""Seconds after which a task counts as hung."""


cancellations = 0
"""Turns at which a task was cancelled, for the fault campaign."""


class SteppingLoop(asyncio.SelectorEventLoop):
    """A loop that cancels a task after a number of turns, and at each turn from then.

    A task that is cancelled repeatedly is cancelled during its clean-up too.
    """

    def __init__(self) -> None:
        super().__init__()
        self._left = 0
        self._again = 0
        self._victim: asyncio.Task[Any] | None = None

    def cancel_after(self, turns: int, victim: asyncio.Task[Any], again: int) -> None:
        """Cancel a task after ``turns`` turns, unless it has ended."""
        self._left, self._victim, self._again = turns + 1, victim, again

    @property
    def has_cancelled(self) -> bool:
        """Whether the last task was cancelled before it ended."""
        return self._left <= 0

    def _run_once(self) -> None:
        super()._run_once()  # type: ignore[misc]  # private in asyncio, not typed
        if self._victim is None or self._victim.done():
            return
        self._left -= 1
        if -self._again <= self._left <= 0:
            self._victim.cancel()


async def cancelled_at_every_turn(
    start: Callable[[], Coroutine[Any, Any, object]], *, again: int = 0, most: int = 60
) -> AsyncIterator[asyncio.Task[object]]:
    """Yield an ended task for each turn at which it was cancelled.

    The last one ended by itself before it was cancelled. After ``most`` cancellations
    the steps grow, so that long work is covered to its end.

    Args:
        start: Creates a new coroutine.
        again: How often it is cancelled again, at the turns that follow.
        most: Cancellations before the steps grow.
    """
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SteppingLoop)
    turn, step, tried = 0, 1, 0
    while True:
        task = asyncio.create_task(start(), name="the victim")
        loop.cancel_after(turn, task, again)
        done, _ = await asyncio.wait({task}, timeout=TIMEOUT_S)
        assert done, f"hangs after a cancellation at turn {turn}"
        if loop.has_cancelled:
            assert task.cancelled(), f"swallowed at turn {turn}: {task}"
        yield task
        if not loop.has_cancelled:
            return
        globals()["cancellations"] += 1
        tried += 1
        step = 1 if tried < most else step + step // 3 + 1
        turn += step


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run a test in a stepping loop."""
    with asyncio.Runner(loop_factory=SteppingLoop) as runner:
        runner.run(test)
