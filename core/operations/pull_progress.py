"""How far a pull is: one total from the lines about its layers.

Pure: lines and times go in. The sums are kept, so that a line costs the same however
many layers there are. What is told never goes back, although the server's
count does (to nothing, even) when it throws away what a part of a layer had. The
server never tells the whole size in advance: a layer counts once it is named, so
the total can grow, but never shrinks.
"""

from __future__ import annotations

import math
from typing import Final, Self

import msgspec

from herdbook.core.ollama.wire import PullLine

STALL_AFTER_S: Final = 20.0
"""Seconds without a byte until a pull counts as stalled: less than the 30 s after
which the server starts the parts anew and loses what they had."""

RATE_OVER_S: Final = 5.0
"""Seconds over which the rate is smoothed: older bytes weigh less, by 1/e."""

_ASKING: Final = "pulling manifest"


class PullProgress(msgspec.Struct, frozen=True, kw_only=True):
    """What can be told of a pull at one moment.

    Attributes:
        completed_bytes: What the server has of the model; never goes back.
        total_bytes: All of it, as far as layers are known; None before the first.
        fetched_bytes: Bytes that came since the start, those that came twice too.
            What a layer's first line tells does not count: it cannot be told from
            what was there before (with a line every 60 ms, that is little).
        refetched_bytes: Those of them that came twice.
        rate_bytes_s: Bytes a second that come now, smoothed; None while none are due.
        eta_s: Seconds until the known layers are there, at that rate.
        digest: The layer that is being fetched.
        status: What the server says that it does.
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
        """Whole percents, 100 only when all is there; None while nothing is known."""
        if self.total_bytes is None:
            return None
        if self.completed_bytes >= self.total_bytes:
            return 100
        return 100 * self.completed_bytes // self.total_bytes

    @classmethod
    def recorded(cls, completed_bytes: int, total_bytes: int | None) -> Self:
        """Return what another instance's events tell of its pull."""
        return cls(completed_bytes=completed_bytes, total_bytes=total_bytes)


class _Layer:
    """One layer: its size, what the server has now, the most that it ever had."""

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

    @property
    def verifying(self) -> bool:
        """Whether all bytes are there: the server may be silent as it checks them."""
        return self._verifying

    def restart(self) -> None:
        """Begin another attempt: what the server then has of each layer is open."""
        for layer in self._layers.values():
            layer.completed = None
        self._open, self._there = dict(self._layers), 0
        self._layer, self._verifying, self._byte_at = None, False, None
        self._rate.pause()

    def take(self, line: PullLine, now: float) -> None:
        """Take in the next line.

        Args:
            line: It.
            now: When it came: seconds of a clock that never goes back.
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
        """Return what can be told now."""
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
        """Tell whether bytes are due and none came for ``after_s``.

        The check of a big layer is silent, and so is the question for the manifest:
        neither is a stall.
        """
        if self._layer is None or self._byte_at is None:
            return False
        return now - self._byte_at >= after_s

    @property
    def _total(self) -> int:
        return max(self._announced, self._named)

    def _fetch(
        self, digest: str, total: int, completed: int | None, now: float
    ) -> None:
        """Take in a line about a layer; layers come one after another.

        Args:
            digest: The layer.
            total: Its size.
            completed: What is there of it; None where the line does not say.
            now: When the line came.
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
            # What its first line tells may have been there before: it is no rate.
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
        """Complete a layer: its last line can come before its last byte."""
        if layer.completed is None:
            layer.completed = layer.total
            self._there += layer.total
        self._count(layer, layer.total, now)

    def _count(self, layer: _Layer, completed: int, now: float) -> None:
        before = layer.completed or 0
        came = max(completed - before, 0)
        if came:
            self._byte_at = now
        self._fetched += came
        self._refetched += max(min(completed, layer.most) - before, 0)
        self._rate.add(came, now)
        self._there += completed - before
        self._most += max(completed - layer.most, 0)
        layer.completed = completed
        layer.most = max(layer.most, completed)


class _Rate:
    """Bytes and seconds, both forgotten alike: their quotient is the rate."""

    def __init__(self) -> None:
        self._bytes = 0.0
        self._seconds = 0.0
        self._at: float | None = None

    def add(self, count: int, now: float) -> None:
        """Count bytes that came since the last call."""
        kept, seconds = self._faded(now)
        elapsed = 0.0 if self._at is None else now - self._at
        weight = seconds / elapsed if elapsed > 0 else 1.0
        self._bytes = self._bytes * kept + count * weight
        self._seconds = self._seconds * kept + seconds
        self._at = now

    def at(self, now: float) -> float | None:
        """Return bytes a second; silence since the last call counts as well."""
        kept, seconds = self._faded(now)
        seconds += self._seconds * kept
        return self._bytes * kept / seconds if seconds > 0 else None

    def pause(self) -> None:
        """Leave out the time until the next call: no bytes are due."""
        self._at = None

    def _faded(self, now: float) -> tuple[float, float]:
        """Return what is kept of the past, and the weighed seconds since then."""
        elapsed = 0.0 if self._at is None else max(now - self._at, 0.0)
        kept = math.exp(-elapsed / RATE_OVER_S)
        return kept, RATE_OVER_S * (1 - kept)
