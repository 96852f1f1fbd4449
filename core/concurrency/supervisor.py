"""Background tasks that are restarted when they fail.

A task that ends with an exception is logged, and restarted with exponential back-off
until its owner closes it. Its status shows since when it fails and why.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from herdbook.core.clock import Clock
from herdbook.core.diagnosis import Diagnosis, Level, diagnosis
from herdbook.core.errors import HerdbookError, kind_of
from herdbook.core.logging import Logger
from herdbook.events.errors import in_line
from herdbook.events.shared.cancellation import end

FIRST_WAIT_S: Final = 1.0
"""Seconds until the first restart; doubled with each further failure."""

LONGEST_WAIT_S: Final = 30.0
"""Seconds until a restart at most. A run that lasts this long resets the back-off."""

_TRACEBACK_FRAMES: Final = 6
_TRACEBACK_CHARACTERS: Final = 2000

_log = Logger("herdbook.background")


class TaskStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The status of a background task.

    Attributes:
        name: Its name.
        up: Whether it runs and has not failed since its last success.
        restarts: The number of restarts.
        failing_since: When it started to fail, UTC; None while it is up.
        code: The code of the last failure; empty while it is up.
        failure: The last failure as text; empty while it is up.
        next_try_at: When it restarts, UTC; None unless it waits for that.
    """

    name: str
    up: bool = True
    restarts: int = 0
    failing_since: datetime | None = None
    code: str = ""
    failure: str = ""
    next_try_at: datetime | None = None


class BackgroundTask:
    """Work that runs until it is closed, and is restarted when it fails.

    Args:
        name: The name in logs, metrics and pages.
        work: Runs until it is cancelled, and calls ``succeeded`` after each success.
            If it returns, it is finished and not restarted.
        clock: Measures the back-off.
        node: The node that it works for; empty if it works for the log or the service.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[BackgroundTask], Coroutine[Any, Any, None]],
        *,
        clock: Clock,
        node: str = "",
    ) -> None:
        self._work = work
        self._clock = clock
        self._logged = {"task": name, "node": node} if node else {"task": name}
        self._status = TaskStatus(name=name)
        self._wait_s = FIRST_WAIT_S

    @property
    def status(self) -> TaskStatus:
        """The current status."""
        return self._status

    def succeeded(self) -> None:
        """Note that the work has succeeded, so the task is no longer failing."""
        if not self._status.up:
            name, restarts = self._status.name, self._status.restarts
            self._status = TaskStatus(name=name, restarts=restarts)
            _log.info("background_task_recovered", **self._logged)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run while the block runs; the task has ended when the block is left.

        Raises:
            Exception: The work failed while it was cancelled.
        """
        task = asyncio.create_task(self._run(), name=f"herdbook {self._status.name}")
        try:
            yield
        finally:
            await end(task)
            if not task.cancelled():
                task.result()

    async def _run(self) -> None:
        while True:
            began = self._clock.monotonic()
            try:
                await self._work(self)
            except asyncio.CancelledError as error:
                if _is_cancelled():
                    raise
                self._fail(error, began)  # a task that the work awaited was cancelled
            except Exception as error:
                if _is_cancelled():
                    raise  # it failed to end: a restart would never be cancelled
                self._fail(error, began)
            else:
                return
            await self._clock.sleep(self._wait_s)
            self._status = msgspec.structs.replace(
                self._status, restarts=self._status.restarts + 1, next_try_at=None
            )

    def _fail(self, error: BaseException, began: float) -> None:
        lasted_s = self._clock.monotonic() - began
        if self._status.restarts and lasted_s < LONGEST_WAIT_S:
            self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)
        else:
            self._wait_s = FIRST_WAIT_S
        code, failure = _described(error)
        now = self._clock.now()
        self._status = msgspec.structs.replace(
            self._status,
            up=False,
            failing_since=self._status.failing_since or now,
            code=code,
            failure=failure,
            next_try_at=now + timedelta(seconds=self._wait_s),
        )
        _log.warning(
            "background_task_failed",
            **self._logged,
            reason=failure,
            restart_in_s=self._wait_s,
            traceback=_traceback(error),
        )


def task_status(name: str, failure: HerdbookError | None) -> TaskStatus:
    """Return the status of a task that handles its own failures."""
    if failure is None:
        return TaskStatus(name=name)
    code, words = _described(failure)
    return TaskStatus(name=name, up=False, code=code, failure=words)


def check_tasks(tasks: Sequence[TaskStatus]) -> list[Diagnosis]:
    """Return a result for each failing background task, or one if all run."""
    found = [
        diagnosis(
            "background",
            f"{task.name.replace('_', ' ')} is failing: {task.failure}",
            "Herdbook retries it. If it keeps failing, check the log output and "
            "restart",
            level=Level.PROBLEM,
        )
        for task in tasks
        if not task.up
    ]
    if tasks and not found:
        names = ", ".join(task.name.replace("_", " ") for task in tasks)
        names = names.replace("kept head", "saved head")
        found = [diagnosis("background", f"all running: {names}")]
    return found


@asynccontextmanager
async def all_running(*tasks: BackgroundTask) -> AsyncIterator[None]:
    """Run several tasks while the block runs."""
    async with AsyncExitStack() as stack:
        for task in tasks:
            await stack.enter_async_context(task.running())
        yield


def _is_cancelled() -> bool:
    """Return whether the running task itself was cancelled."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _described(error: BaseException) -> tuple[str, str]:
    """Return the code of an error, and the error in one line."""
    if isinstance(error, HerdbookError):
        return kind_of(error), str(error)
    kind = type(error).__name__
    return kind, in_line(f"unexpected error: {kind}: {error}")


def _traceback(error: BaseException) -> str:
    """Return the last frames of an unexpected error; empty for a Herdbook error."""
    if isinstance(error, HerdbookError):
        return ""
    lines = traceback.format_exception(error, limit=-_TRACEBACK_FRAMES)
    return "".join(lines)[-_TRACEBACK_CHARACTERS:]
