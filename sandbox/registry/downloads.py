"""Download blobs from the simulated registry, in parts, as the real server does.

Invariant: the bytes downloaded are a function of the clock alone. Progress is saved
when a part's connection ends by itself or by a cancel, and lost when the connection
is reset, stalls for too long or the server is killed.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import Final

from herdbook.sandbox.clock import Clock, Timer
from herdbook.sandbox.models.artifacts import Blob
from herdbook.sandbox.models.store import Partial, Store
from herdbook.sandbox.registry.registry import FAST, Behaviour, Registry

#: Sizes of the real server's parts, and how many it downloads at a time.
_SMALLEST_PART: Final = 100_000_000
_LARGEST_PART: Final = 1_000_000_000
_AT_A_TIME: Final = 16
#: Failures of one part after which the download fails; 1, 2, 4 … seconds between.
_TRIES: Final = 6
#: Seconds without a byte after which a part is restarted.
_PATIENCE_S: Final = 30.0

Watcher = Callable[[str], None]
"""Called with the end of a download: an empty text, or the text of the failure."""


class _Ending(Enum):
    DONE = auto()
    CUT = auto()
    RESET = auto()
    STALL = auto()


class _Part:
    """One range of a blob, and its connection."""

    def __init__(self, size: int, saved: int) -> None:
        self.size = size
        self.saved = saved
        self.tries = 0
        self.began: float | None = None
        self.rate = 0.0
        self.brings = 0
        self.timer: Timer | None = None

    def completed(self, now: float) -> int:
        if self.began is None:
            return self.saved
        come = int(max(now - self.began, 0.0) * self.rate)
        return self.saved + min(come, self.brings)

    def close(self, *, saved: int) -> None:
        self.saved = saved
        self.began = None
        if self.timer is not None:
            self.timer.cancel()
        self.timer = None


class Download:
    """The download of one blob, shared by all pulls that need it."""

    def __init__(
        self, blob: Blob, store: Store, registry: Registry, clock: Clock, room: int
    ) -> None:
        self.blob = blob
        self.ended = False
        self._store = store
        self._registry = registry
        self._clock = clock
        self._room = room
        self._watchers: list[Watcher] = []
        self._corrupt = registry.behaviour.corrupt
        self._disk: Timer | None = None
        former = store.partials.get(blob.digest)
        sizes = former.sizes if former else _split(blob.size)
        saved = former.saved if former else [0] * len(sizes)
        self._parts = [_Part(*pair) for pair in zip(sizes, saved, strict=True)]

    def completed(self) -> int:
        """Return the bytes downloaded so far."""
        return sum(part.completed(self._clock.now()) for part in self._parts)

    def join(self, watcher: Watcher) -> None:
        """Wait for the end; the first call starts the download."""
        self._watchers.append(watcher)
        if len(self._watchers) == 1:
            self._keep()
            self._fill()

    def leave(self, watcher: Watcher) -> bool:
        """Stop waiting; cancel the download, and return True, if no other waits."""
        if watcher in self._watchers:
            self._watchers.remove(watcher)
        if self._watchers or self.ended:
            return False
        self._stop(keep=True)
        return True

    def die(self, *, keep: bool) -> None:
        """End with the server; a kill loses what open connections have downloaded."""
        self._watchers.clear()
        self._stop(keep=keep)

    def _fill(self) -> None:
        """Start parts while connections are free; finish if all are complete."""
        now = self._clock.now()
        open_parts = [part for part in self._parts if part.saved < part.size]
        if not open_parts:
            self._finish()
            return
        busy = sum(part.timer is not None for part in open_parts)
        idle = [part for part in open_parts if part.timer is None]
        for part in idle[: _AT_A_TIME - busy]:
            self._connect(part, now)
        self._watch_disk()

    def _connect(self, part: _Part, now: float) -> None:
        self._registry.requests += 1
        behaviour = self._registry.behaviour
        if behaviour.blob_status:
            part.timer = self._later(
                behaviour.latency_s, lambda: self._retry(part, "EOF")
            )
            return
        ending, part.brings = _ending(behaviour, part.size - part.saved)
        part.rate = behaviour.rate or FAST
        part.began = now + behaviour.latency_s
        takes = behaviour.latency_s + part.brings / part.rate
        part.timer = self._later(takes, lambda: self._end_part(part, ending))

    def _end_part(self, part: _Part, ending: _Ending) -> None:
        match ending:
            case _Ending.DONE:
                part.close(saved=part.size)
                self._keep()
                self._fill()
            case _Ending.CUT:
                part.close(saved=part.saved + part.brings)
                self._keep()
                self._retry(part, "unexpected EOF")
            case _Ending.RESET:
                part.close(saved=part.saved)
                self._retry(part, "connection reset by peer")
            case _Ending.STALL:
                part.timer = self._later(_PATIENCE_S, lambda: self._restart(part))

    def _restart(self, part: _Part) -> None:
        part.close(saved=part.saved)
        self._fill()

    def _retry(self, part: _Part, words: str) -> None:
        part.tries += 1
        part.timer = self._later(
            2.0 ** (part.tries - 1), lambda: self._try_again(part, words)
        )

    def _try_again(self, part: _Part, words: str) -> None:
        part.timer = None
        if part.tries >= _TRIES:
            self._fail(f"max retries exceeded: {words}")
        else:
            self._fill()

    def _watch_disk(self) -> None:
        """Fail as soon as the disk is full."""
        if self._disk is not None:
            self._disk.cancel()
        if self.blob.size <= self._room:
            return
        rate = sum(part.rate for part in self._parts if part.began is not None)
        missing = self._room - self.completed()
        if missing <= 0:
            file = f"/models/blobs/{self.blob.digest.replace(':', '-')}-partial"
            self._fail(f"write {file}: no space left on device")
        elif rate:
            self._disk = self._later(missing / rate + 0.001, self._watch_disk)

    def _finish(self) -> None:
        self._stop_timers()
        self._store.partials.pop(self.blob.digest, None)
        self._store.blobs[self.blob.digest] = self.blob
        self._store.changed()
        if self._corrupt:
            self._store.corrupted.add(self.blob.digest)
        self._end("")

    def _fail(self, words: str) -> None:
        self._stop(keep=True)
        self._end(words)

    def _end(self, words: str) -> None:
        self.ended = True
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            watcher(words)

    def _stop(self, *, keep: bool) -> None:
        now = self._clock.now()
        self.ended = True
        for part in self._parts:
            part.close(saved=part.completed(now) if keep else part.saved)
        self._stop_timers()
        self._keep()

    def _keep(self) -> None:
        """Save the state of the parts, as a disk would hold it."""
        self._store.partials[self.blob.digest] = Partial(
            sizes=[part.size for part in self._parts],
            saved=[part.saved for part in self._parts],
            touched=self._clock.wall(self._clock.now()),
        )
        self._store.changed()

    def _stop_timers(self) -> None:
        if self._disk is not None:
            self._disk.cancel()

    def _later(self, delay: float, call: Callable[[], None]) -> Timer:
        return self._clock.call_later(delay, call)


def _split(size: int) -> list[int]:
    part = min(max(size // 16, _SMALLEST_PART), _LARGEST_PART)
    whole, rest = divmod(size, part)
    return [part] * whole + ([rest] if rest or not whole else [])


def _ending(behaviour: Behaviour, wanted: int) -> tuple[_Ending, int]:
    limits = (
        (behaviour.cut_after, _Ending.CUT),
        (behaviour.reset_after, _Ending.RESET),
        (behaviour.stall_after, _Ending.STALL),
    )
    ends = [
        (ending, after)
        for after, ending in limits
        if after is not None and after < wanted
    ]
    return min(ends, key=lambda end: end[1], default=(_Ending.DONE, wanted))
