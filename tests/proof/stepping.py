"""Cancel a coroutine after each turn of the event loop, one after another.

A turn is one round of callbacks, so every await of the coroutine, and of every
task that it waits for, is met by some turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

PATIENCE_S = 20.0
"""Seconds after which something that should have ended hangs."""


class SteppingLoop(asyncio.SelectorEventLoop):
    """A loop that cancels a task after so many of its turns, and at each from then.

    One that is cancelled again and again has no turn in peace to tidy up in.
    """

    def __init__(self) -> None:
        super().__init__()
        self._left = 0
        self._again = 0
        self._victim: asyncio.Task[Any] | None = None

    def cancel_after(self, turns: int, victim: asyncio.Task[Any], again: int) -> None:
        """Cancel a task after ``turns`` turns from now, if it is not over then."""
        self._left, self._victim, self._again = turns + 1, victim, again

    @property
    def has_cancelled(self) -> bool:
        """Whether the last task that was to be cancelled was not over in time."""
        return self._left <= 0

    def _run_once(self) -> None:
        super()._run_once()  # type: ignore[misc]  # the loop's own turn, not typed
        if self._victim is None or self._victim.done():
            return
        self._left -= 1
        if -self._again <= self._left <= 0:
            self._victim.cancel()


async def cancelled_at_every_turn(
    start: Callable[[], Coroutine[Any, Any, object]], *, again: int = 0, most: int = 60
) -> AsyncIterator[asyncio.Task[object]]:
    """Yield a started task for each turn that it was cancelled at, once it is over.

    The last one was fast enough to end by itself. The steps grow once ``most``
    have been tried, so that long work is met all along.

    Args:
        start: Makes the coroutine, anew each time.
        again: How often it is cancelled again, at the turns that follow.
        most: Cancellations before the steps grow.
    """
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SteppingLoop)
    turn, step, tried = 0, 1, 0
    while True:
        task = asyncio.create_task(start(), name="the victim")
        loop.cancel_after(turn, task, again)
        done, _ = await asyncio.wait({task}, timeout=PATIENCE_S)
        assert done, f"hangs after a cancellation at turn {turn}"
        if loop.has_cancelled:
            assert task.cancelled(), f"swallowed at turn {turn}: {task}"
        yield task
        if not loop.has_cancelled:
            return
        tried += 1
        step = 1 if tried < most else step + step // 3 + 1
        turn += step


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run a test in a stepping loop."""
    with asyncio.Runner(loop_factory=SteppingLoop) as runner:
        runner.run(test)
