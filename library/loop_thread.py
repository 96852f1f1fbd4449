"""An asyncio event loop in a thread of its own, used from synchronous code."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from concurrent.futures import CancelledError, Future
from contextlib import AbstractAsyncContextManager, aclosing, suppress
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from herdbook.core.errors import CallerError, OperationEndedError

T = TypeVar("T")


class LoopThread:
    """Runs coroutines for synchronous callers, from any thread.

    The context variables of the caller apply to what it runs. An interrupted call
    cancels its coroutine.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._closed, self._closing = False, threading.Lock()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="herdbook loop", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Cancel what still runs, and end the thread. A second call does nothing."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            ended = asyncio.run_coroutine_threadsafe(_cancel_others(), self._loop)
        ended.result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine on the loop.

        Raises:
            CallerError: The loop is closed, or this is its own thread.
        """
        here = threading.current_thread() is self._thread
        with self._closing:
            if not (self._closed or here):
                return asyncio.run_coroutine_threadsafe(work, self._loop)
        work.close()
        if here:
            raise CallerError("the manager", "cannot be called from its own thread")
        raise CallerError("the manager", "is closed", "Open it again")

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and return its result."""
        running = self.submit(work)
        try:
            return running.result()
        except CancelledError:
            raise OperationEndedError(
                "the call", "was cancelled: the manager was closed"
            ) from None
        except BaseException:
            running.cancel()
            raise

    def call(self, function: Callable[[], T]) -> T:
        """Call a function on the loop and return its result."""

        async def work() -> T:
            return function()

        return self.run(work())

    def iterate(self, source: AsyncGenerator[T, None]) -> Generator[T, None, None]:
        """Yield the items of an asynchronous generator.

        Each item is requested when the caller is ready for it. Closing the iterator
        closes the source and waits for that.
        """
        pump = _Pump(source)
        self.run(pump.start())
        try:
            while True:
                self.call(pump.requested.set)
                item = pump.items.get()
                if item is None:
                    break
                yield item[0]
        finally:
            with suppress(CallerError):  # closed, which stopped it
                self.run(pump.stop())
        self.run(pump.result())

    def hold(self, manager: AbstractAsyncContextManager[T]) -> _Held[T]:
        """Enter an asynchronous context manager, in a task that also leaves it."""
        held = _Held(self, manager)
        held.opened = self.run(held.start())
        return held


class _Pump(Generic[T]):
    """Moves items from a task to another thread, one for each request."""

    def __init__(self, source: AsyncGenerator[T, None]) -> None:
        self._source = source
        self._task: asyncio.Task[None] | None = None
        self.items: SimpleQueue[tuple[T] | None] = SimpleQueue()
        self.requested = asyncio.Event()

    async def start(self) -> None:
        """Start the task. ``None`` in the queue marks its end."""
        self._task = asyncio.create_task(self._serve())
        self._task.add_done_callback(lambda _: self.items.put(None))

    async def _serve(self) -> None:
        async with aclosing(self._source) as items:
            await self._request()
            async for item in items:
                self.items.put((item,))
                await self._request()

    async def _request(self) -> None:
        await self.requested.wait()
        self.requested.clear()

    async def stop(self) -> None:
        """Cancel the task if it runs, and wait for its end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def result(self) -> None:
        """Raise the error of the source, if any."""
        if self._task is not None:
            await self._task


class _Held(Generic[T]):
    """An asynchronous context manager that one task enters and leaves.

    Attributes:
        opened: What it gave when it was entered.
    """

    opened: T

    def __init__(
        self, thread: LoopThread, manager: AbstractAsyncContextManager[T]
    ) -> None:
        self._thread = thread
        self._manager = manager
        self._leave = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> T:
        """Enter it, and return what it gives."""
        entered: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._live(entered))
        self._task.add_done_callback(lambda _: entered.cancel())
        try:
            return await entered
        except asyncio.CancelledError:
            if self._task.done():
                await self._task  # raises the error of the context manager
            raise

    async def _live(self, entered: asyncio.Future[T]) -> None:
        async with self._manager as opened:
            entered.set_result(opened)
            await self._leave.wait()

    def close(self) -> None:
        """Leave it, and wait for that."""
        self._thread.run(self._end())

    async def _end(self) -> None:
        self._leave.set()
        if self._task is not None:
            await self._task


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
