"""Wait for work to end even if the caller is cancelled, and end tasks for certain."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

T = TypeVar("T")


async def finish(work: Awaitable[T]) -> T:
    """Finish short work even if the caller is cancelled meanwhile.

    Raises:
        asyncio.CancelledError: The caller was cancelled; the work has succeeded. An
            error of the work is raised instead of a cancellation.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    result = task.result()
    if cancelled:
        raise cancelled
    return result


async def end(task: asyncio.Task[Any]) -> None:
    """Cancel a task, and wait until it has ended; its own error is not raised.

    ``suppress(CancelledError)`` around ``await task`` would also suppress the
    cancellation of the caller.

    Raises:
        asyncio.CancelledError: The caller was cancelled; the task has ended.
    """
    task.cancel()
    await finish(asyncio.wait([task]))
