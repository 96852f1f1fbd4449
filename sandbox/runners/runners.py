"""Simulated runners that hold weights in memory, and the queue of waiting loads.

Invariant: runners are keyed by weights, not by names. Loads run one after the other;
a request for loaded weights does not wait for them. A runner is removed when it is idle
and its keep-alive is over, or when another one needs its place.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from herdbook.sandbox.clock import Clock, Timer
from herdbook.sandbox.go_time import FOREVER_S
from herdbook.sandbox.refusals import Refusal
from herdbook.sandbox.runners.runner import Request, Runner, Wanted, why_not
from herdbook.sandbox.settings import Settings

_BUSY: Final = "server busy, please try again.  maximum pending requests exceeded"


class Runners:
    """All runners of the server, and the queue before them.

    Attributes:
        start_delay_s: what every start takes besides.
        dies_saying: what a runner says on its error output when it starts and
            dies; None where it lives.
        unload_lag_s: how long a runner still shows after it was unloaded.
        changed: called whenever a runner has come or gone.
    """

    def __init__(self, clock: Clock, settings: Settings) -> None:
        self._clock = clock
        self._settings = settings
        self._loaded: dict[str, Runner] = {}
        self._queue: deque[Request] = deque()
        self._current: Request | None = None
        self._starting: Timer | None = None
        self.start_delay_s = 0.0
        self.dies_saying: str | None = None
        self.unload_lag_s = 0.0
        self.changed: Callable[[], None] = _nothing

    def listed(self) -> list[Runner]:
        """List the runners in memory, the last to expire first, by whole seconds."""
        now = self._clock.now()
        return sorted(
            self._loaded.values(),
            key=lambda one: int(one.expires_at(now)),
            reverse=True,
        )

    def vram(self, runner: Runner) -> int:
        """Return how much of a runner is on the GPU, in order of loading."""
        free = self._settings.vram_bytes
        for other in self._loaded.values():
            if other is runner:
                break
            free -= min(other.size, max(free, 0))
        return min(runner.size, max(free, 0))

    def ask(self, wanted: Wanted, keep_alive_s: float | None) -> Request:
        """Ask for a runner.

        Raises:
            Refusal: 503 where too many wait already.
        """
        request = Request(wanted, keep_alive_s)
        request.loaded_s = self._clock.now()
        runner = self._loaded.get(wanted.weights.digest)
        if runner is not None and runner.serves(wanted):
            self._grant(request, runner)
            return request
        if len(self._queue) >= self._settings.max_queue:
            raise Refusal(503, _BUSY)
        self._queue.append(request)
        self._start_next()
        return request

    def leave(self, request: Request) -> None:
        """Release a runner, or stop waiting for it, which aborts its load."""
        if request.runner is not None:
            runner, request.runner = request.runner, None
            self._release(runner)
        elif request is self._current:
            self._abort()
            self._start_next()
        elif request in self._queue:
            self._queue.remove(request)

    def unload(self, digest: str) -> None:
        """Unload the runner of these weights as soon as it is idle.

        One that is still loading is not changed.
        """
        runner = self._loaded.get(digest)
        if runner is not None:
            self._expire(runner)

    def kill(self) -> None:
        """Kill the processes of all runners; the server does not notice yet."""
        for runner in self._loaded.values():
            runner.dead = True

    def clear(self) -> None:
        """Forget everything, as a restart does."""
        for runner in self._loaded.values():
            runner.stop_timer()
        self._loaded.clear()
        self.changed()
        self._queue.clear()
        self._abort()

    def _start_next(self) -> None:
        while self._current is None and self._queue:
            self._current = self._queue.popleft()
            self._place()

    def _place(self) -> None:
        """Find a place for the current request, or wait until one is free."""
        request = self._current
        assert request is not None
        runner = self._loaded.get(request.wanted.weights.digest)
        if runner is not None and runner.serves(request.wanted):
            self._current = None
            self._grant(request, runner)
            return
        other = runner or self._in_the_way(request.wanted)
        if other is None:
            self._start(request)
        else:
            self._expire(other)

    def _in_the_way(self, wanted: Wanted) -> Runner | None:
        """Choose the runner to evict: an idle one, then the shortest keep-alive."""
        if not self._loaded or self._has_room(wanted):
            return None
        return min(
            self._loaded.values(),
            key=lambda one: (one.users > 0, one.session_s, one.wanted.weights.digest),
        )

    def _has_room(self, wanted: Wanted) -> bool:
        if len(self._loaded) >= self._settings.max_loaded:
            return False
        memory = self._settings.memory_bytes
        taken = sum(runner.size for runner in self._loaded.values())
        return memory is None or taken + Runner(wanted, 0).size <= memory

    def _start(self, request: Request) -> None:
        takes = self._settings.start_s + self.start_delay_s
        takes += request.wanted.weights.size / self._settings.load_rate
        words = why_not(
            request.wanted, self._settings, takes=takes, says=self.dies_saying
        )
        if words:
            takes = min(takes, self._settings.load_timeout_s)
            self._starting = self._clock.call_later(takes, lambda: self._fail(words))
        else:
            self._starting = self._clock.call_later(takes, self._started)

    def _started(self) -> None:
        request, self._current, self._starting = self._current, None, None
        assert request is not None
        runner = Runner(request.wanted, self._settings.keep_alive_s)
        self._loaded[request.wanted.weights.digest] = runner
        self.changed()
        self._grant(request, runner)
        self._start_next()

    def _fail(self, words: str) -> None:
        request, self._current, self._starting = self._current, None, None
        assert request is not None
        request.granted.fail(Refusal(500, words))
        self._start_next()

    def _abort(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
        self._current = self._starting = None

    def _grant(self, request: Request, runner: Runner) -> None:
        runner.users += 1
        runner.stop_timer()
        if request.keep_alive_s is not None:
            runner.session_s = request.keep_alive_s
        request.runner = runner
        request.loaded_s = self._clock.now() - request.loaded_s
        request.granted.settle(runner)

    def _release(self, runner: Runner) -> None:
        runner.users -= 1
        if runner.users or runner not in self._loaded.values():
            return
        session = min(runner.session_s, FOREVER_S)
        if session <= 0:
            self._remove(runner)
            return
        runner.expires = self._clock.now() + session
        if session < FOREVER_S:
            runner.timer = self._clock.call_later(session, lambda: self._remove(runner))

    def _expire(self, runner: Runner) -> None:
        runner.session_s = 0.0
        runner.expires = self._clock.now()
        if not runner.users:
            runner.stop_timer()
            self._remove(runner)

    def _remove(self, runner: Runner) -> None:
        if self.unload_lag_s:
            runner.dead = True
            runner.timer = self._clock.call_later(
                self.unload_lag_s, lambda: self._forget(runner)
            )
        else:
            self._forget(runner)

    def _forget(self, runner: Runner) -> None:
        self._loaded = {k: v for k, v in self._loaded.items() if v is not runner}
        self.changed()
        if self._current is not None and self._starting is None:
            self._place()
            self._start_next()


def _nothing() -> None:
    """Do nothing."""
