"""A sandbox server and its managers on one clock that advances by itself.

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
from collections.abc import AsyncIterator, Callable
from concurrent.futures import thread as executor_threads
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

import aiosqlite.core
import httpx

from herdbook import sandbox
from herdbook.core import (
    Fleet,
    ManagerSettings,
    ModelManager,
    ModelRegistry,
    PullProgress,
    RecordedEvent,
)
from herdbook.core.clock import Timeout
from herdbook.core.log.location import MEMORY
from herdbook.events.facts import Fact
from herdbook.sandbox.models.names import Name

_AIOSQLITE = aiosqlite.core.__file__
_WAITING_CALLS = {_AIOSQLITE: "tx.get(", executor_threads.__file__: "work_queue.get("}
"""The files of threads that take work from a queue, and the call that waits for it."""


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

    async def pass_by(self) -> None:
        """Advance whenever everything waits, until cancelled."""
        while True:
            await _all_waiting()
            if not self.advance_to_next_timer():
                await asyncio.sleep(0.0005)


class ManagerClock:
    """The same clock, as the manager takes it."""

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


class SandboxServer:
    """A sandbox server, and its clients.

    Attributes:
        world: The simulated world.
        url: Address of the server.
        time: The clock.
        clock: The same clock, as the manager takes it.
    """

    def __init__(
        self, world: sandbox.World, url: str, time: AutoClock, http: httpx.AsyncClient
    ) -> None:
        self.world = world
        self.url = url
        self.time = time
        self.clock = ManagerClock(time)
        self._http = http

    def open_manager(
        self,
        log: str | Path = MEMORY,
        *,
        settings: ManagerSettings | None = None,
        registry: ModelRegistry | None = None,
        actor: str = "library:python",
        refresh: bool = True,
    ) -> AbstractAsyncContextManager[ModelManager]:
        """Open a manager of this server."""
        return ModelManager.open(
            log,
            ollama=self.url,
            actor=actor,
            registry=registry,
            settings=settings,
            clock=self.clock,
            refresh=refresh,
        )

    def open_fleet(
        self, log: str | Path = MEMORY, *, refresh: bool = True
    ) -> AbstractAsyncContextManager[Fleet]:
        """Open the nodes of a log, of which this server is the first."""
        return Fleet.open(log, ollama=self.url, clock=self.clock, refresh=refresh)

    async def request(self, method: str, path: str, **body: object) -> httpx.Response:
        """Send a request as another program would, without Herdbook."""
        return await self._http.request(method, path, json=body or None)

    async def load(self, name: str, **body: object) -> None:
        """Load a model as another program would."""
        answer = await self.request("POST", "/api/generate", model=name, **body)
        assert answer.status_code == 200, answer.text

    async def unload(self, name: str) -> None:
        """Unload a model as another program would."""
        await self.load(name, keep_alive=0)

    async def pull(self, name: str) -> None:
        """Pull a model as another program would."""
        answer = await self.request("POST", "/api/pull", model=name, stream=False)
        assert answer.json() == {"status": "success"}, answer.text

    async def copy(self, source: str, destination: str) -> None:
        """Give a model a second name as another program would."""
        await self.request("POST", "/api/copy", source=source, destination=destination)

    async def delete(self, name: str) -> None:
        """Delete a model as another program would."""
        await self.request("DELETE", "/api/delete", model=name)

    def apply(self, **step: object) -> None:
        """Apply a step to the server; see the sandbox's faults."""
        sandbox.apply_step(self.world, step)

    def request_count(self, path: str) -> int:
        """Return the number of requests for a path."""
        return sum(seen.path == path for seen in self.world.seen)

    def has_model(self, name: str) -> bool:
        parsed = Name.parse(name)
        return parsed is not None and self.world.store.find(parsed) is not None

    def partial_bytes(self) -> int:
        """Return the saved bytes of incomplete blobs."""
        return sum(sum(part.saved) for part in self.world.store.partials.values())

    async def wait_until(self, holds: Callable[[], bool]) -> None:
        """Wait until a condition holds, while time passes."""
        while not holds():
            await self.clock.sleep(0.05)


@asynccontextmanager
async def serve_sandbox(
    models: str = "herd",
    *,
    settings: sandbox.Settings | None = None,
    profile: sandbox.Profile = sandbox.CURRENT,
) -> AsyncIterator[SandboxServer]:
    """Serve a world over HTTP, on a clock that advances by itself."""
    time = AutoClock()
    world = sandbox.World(models=models, clock=time, settings=settings, profile=profile)
    passing = asyncio.create_task(time.pass_by(), name="time")
    try:
        async with (
            sandbox.serve(world) as url,
            httpx.AsyncClient(base_url=url, timeout=None, trust_env=False) as http,
        ):
            yield SandboxServer(world, url, time, http)
    finally:
        passing.cancel()
        await asyncio.wait([passing])


@asynccontextmanager
async def serve_manager(
    models: str = "herd",
    *,
    settings: ManagerSettings | None = None,
    sandbox_settings: sandbox.Settings | None = None,
) -> AsyncIterator[tuple[SandboxServer, ModelManager]]:
    """Serve a world with one manager, which has its log in memory."""
    async with (
        serve_sandbox(models, settings=sandbox_settings) as server,
        server.open_manager(settings=settings) as manager,
    ):
        yield server, manager


async def pull_to_end(manager: ModelManager, name: str) -> list[PullProgress]:
    """Pull a model to its end; return all progress."""
    return [progress async for progress in manager.pull(name)]


async def start_pull(manager: ModelManager, name: str, completed: int = 1) -> None:
    """Follow a pull until ``completed`` bytes are there, then leave it running."""
    async with aclosing(manager.pull(name)) as progress:
        async for one in progress:
            if one.completed_bytes >= completed:
                return


async def error_of(task: asyncio.Task[Any]) -> BaseException | None:
    """Wait for the end of a task; return its exception."""
    await asyncio.wait([task])
    return task.exception()


async def recorded_events(
    manager: ModelManager, name: str | None = None, *, after: int = 0
) -> list[RecordedEvent]:
    """Return the events after a position, of one model or of all."""
    end = (await manager.now()).position
    found: list[RecordedEvent] = []
    if end <= after:
        return found
    async with aclosing(manager.events(after=after)) as events:
        async for event in events:
            if name is None or event.stream.endswith(f"/{name}"):
                found.append(event)
            if event.position >= end:
                break
    return found


async def event_types(manager: ModelManager, name: str, *, after: int = 0) -> list[str]:
    """Return the types of a model's events."""
    return [event.type for event in await recorded_events(manager, name, after=after)]


async def last_fact(manager: ModelManager, kind: type[Fact]) -> Fact:
    """Return the newest fact of a kind."""
    found = [
        event.data
        for event in await recorded_events(manager)
        if type(event.data) is kind
    ]
    assert found, f"no {kind.__name__} was recorded"
    return found[-1]


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
    """Return whether a thread of SQLite or of an executor has work."""
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
