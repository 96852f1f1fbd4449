"""Progress of a pull: one total, from the lines about its layers.

Pure functions of lines and times. Sums are updated incrementally, so that a line costs
the same for any number of layers. Reported progress never decreases, although the
server's count does (even to zero) when it discards a part of a layer. The server does
not announce the total size: a layer counts from its first line, so the total can grow
but never shrinks.
"""

from __future__ import annotations

import math
from typing import Final, Self

import msgspec

from herdbook.core.ollama.wire import PullLine
from herdbook.projections.serializable import Serializable

STALL_AFTER_S: Final = 20.0
"""Seconds without new data until a pull counts as stalled: less than the 30 s after
which the server restarts the download and discards partial data."""

RATE_OVER_S: Final = 5.0
"""Time constant of the smoothed rate, seconds: older data weighs less, by 1/e."""

_ASKING: Final = "pulling manifest"


class PullProgress(Serializable, msgspec.Struct, frozen=True, kw_only=True):
    """Progress of a pull at one time.

    Attributes:
        completed_bytes: Data on the server; never decreases.
        total_bytes: Size of all layers known so far; None before the first.
        fetched_bytes: Data downloaded since the start, repeated data included. The
            count in the first line of a layer is left out, because data that was
            there before cannot be distinguished (with a line every 60 ms, that is
            little).
        refetched_bytes: The part of it that was downloaded again.
        rate_bytes_s: Smoothed rate, bytes per second; None while no data is expected.
        eta_s: Seconds until the known layers are complete, at that rate.
        digest: The layer that is being downloaded.
        status: Status text of the server.
    """

    completed_bytes: int
    total_bytes: int | None = None
    fetched_bytes: int | None = None
    refetched_bytes: int = 0
    rate_bytes_s: float | None = None
    eta_s: float | None = None
    digest: str | None = None
    status: str = ""

    @property
    def percent(self) -> int | None:
        """Completed percent, rounded down; None while the total is not known."""
        if self.total_bytes is None:
            return None
        if self.completed_bytes >= self.total_bytes:
            return 100
        return 100 * self.completed_bytes // self.total_bytes

    @classmethod
    def recorded(cls, completed_bytes: int, total_bytes: int | None) -> Self:
        """Return the progress in another instance's events."""
        return cls(completed_bytes=completed_bytes, total_bytes=total_bytes)


class _Layer:
    """One layer: its size, the data on the server now, and the most it ever had."""

    __slots__ = ("completed", "most", "total")

    def __init__(self) -> None:
        self.total = 0
        self.completed: int | None = None
        self.most = 0


class PullTracker:
    """Adds up the lines of a pull, over all attempts at it.

    Args:
        total_bytes: The size of the whole model, where it is known in advance.
    """

    def __init__(self, *, total_bytes: int | None = None) -> None:
        self._announced = total_bytes or 0
        self._layers: dict[str, _Layer] = {}
        self._open: dict[str, _Layer] = {}
        self._named, self._there, self._most = 0, 0, 0
        self._layer: str | None = None
        self._status = ""
        self._verifying = False
        self._completed = 0
        self._fetched = 0
        self._refetched = 0
        self._rate = _Rate()
        self._byte_at: float | None = None

    def restart(self) -> None:
        """Start another attempt: the server may have lost parts of each layer."""
        for layer in self._layers.values():
            layer.completed = None
        self._open, self._there = dict(self._layers), 0
        self._layer, self._verifying, self._byte_at = None, False, None
        self._rate.pause()

    def apply(self, line: PullLine, now: float) -> None:
        """Apply the next line of the stream.

        Args:
            line: The line.
            now: When it arrived, in seconds of a monotonic clock.
        """
        self._status = line.status
        if line.digest is not None:
            self._fetch(line.digest, line.total or 0, line.completed, now)
        elif line.status != _ASKING:
            self._verify(now)
        self._completed = max(
            self._completed, self._total if self._verifying else self._most
        )

    def progress(self, now: float) -> PullProgress:
        """Return the current progress."""
        rate = self._rate.at(now) if self._layer is not None else None
        left = self._total - self._there
        return PullProgress(
            completed_bytes=self._completed,
            total_bytes=self._total or None,
            fetched_bytes=self._fetched,
            refetched_bytes=self._refetched,
            rate_bytes_s=rate,
            eta_s=left / rate if rate and rate >= 1 else None,
            digest=self._layer,
            status=self._status,
        )

    def stalled(self, now: float, *, after_s: float = STALL_AFTER_S) -> bool:
        """Return whether data is expected and none arrived for ``after_s`` seconds.

        The server can be silent while it resolves the manifest, verifies a layer or
        requests the next one; none of these is a stall.
        """
        if not self.expects_data or self._byte_at is None:
            return False
        return now - self._byte_at >= after_s

    @property
    def expects_data(self) -> bool:
        """Whether bytes of the current layer are missing, or its size is unknown."""
        if self._layer is None:
            return False
        layer = self._layers[self._layer]
        return not layer.total or (layer.completed or 0) < layer.total

    @property
    def _total(self) -> int:
        return max(self._announced, self._named)

    def _fetch(
        self, digest: str, total: int, completed: int | None, now: float
    ) -> None:
        """Apply a line about a layer; layers are downloaded one after another.

        Args:
            digest: The layer.
            total: Its size.
            completed: Its data on the server; None if the line does not say.
            now: When the line arrived.
        """
        if self._layer not in {None, digest}:
            self._finish(self._layers[self._layer or ""], now)
        self._layer, self._verifying = digest, False
        layer = self._layers.setdefault(digest, _Layer())
        self._open[digest] = layer
        self._named += max(total - layer.total, 0)
        layer.total = max(layer.total, total)
        if completed is None:
            completed = layer.completed or 0
        completed = min(max(completed, 0), layer.total)
        if layer.completed is None:
            # Data in its first line may be older, so it does not count for the rate.
            layer.completed, self._byte_at = completed, now
            self._there += completed
        self._count(layer, completed, now)

    def _verify(self, now: float) -> None:
        """Take in that all layers are there, those too that had no last line."""
        for layer in self._open.values():
            self._finish(layer, now)
        self._open.clear()
        self._layer, self._verifying = None, True
        self._rate.pause()

    def _finish(self, layer: _Layer, now: float) -> None:
        """Complete a layer, whose last line may not report all of its data."""
        if layer.completed is None:
            layer.completed = layer.total
            self._there += layer.total
        self._count(layer, layer.total, now)

    def _count(self, layer: _Layer, completed: int, now: float) -> None:
        before = layer.completed or 0
        received = max(completed - before, 0)
        if received:
            self._byte_at = now
        self._fetched += received
        self._refetched += max(min(completed, layer.most) - before, 0)
        self._rate.add(received, now)
        self._there += completed - before
        self._most += max(completed - layer.most, 0)
        layer.completed = completed
        layer.most = max(layer.most, completed)


class _Rate:
    """Exponentially weighted rate: decayed bytes over decayed seconds."""

    def __init__(self) -> None:
        self._bytes = 0.0
        self._seconds = 0.0
        self._at: float | None = None

    def add(self, count: int, now: float) -> None:
        """Count bytes that arrived since the last call."""
        decay, seconds = self._faded(now)
        elapsed = 0.0 if self._at is None else now - self._at
        weight = seconds / elapsed if elapsed > 0 else 1.0
        self._bytes = self._bytes * decay + count * weight
        self._seconds = self._seconds * decay + seconds
        self._at = now

    def at(self, now: float) -> float | None:
        """Return bytes per second, with the silence since the last call."""
        decay, seconds = self._faded(now)
        seconds += self._seconds * decay
        return self._bytes * decay / seconds if seconds > 0 else None

    def pause(self) -> None:
        """Ignore the time until the next call, in which no data is expected."""
        self._at = None

    def _faded(self, now: float) -> tuple[float, float]:
        """Return the decay since the last call, and the weighted seconds since then."""
        elapsed = 0.0 if self._at is None else max(now - self._at, 0.0)
        decay = math.exp(-elapsed / RATE_OVER_S)
        return decay, RATE_OVER_S * (1 - decay)
