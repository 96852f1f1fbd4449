"""Progress of a pull: a bar on a terminal, lines in a pipe or as JSON."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from herdbook.cli.output import GAP, Line, Piece, Screen, bar
from herdbook.cli.render.counting import NARROWEST_BAR, WIDEST_BAR
from herdbook.core import PullProgress
from herdbook.presentation import wording

if TYPE_CHECKING:
    from rich.live import Live

LINES_EVERY_S = 5.0
"""Seconds between two lines in a pipe."""

JSON_EVERY_S = 0.5
"""Seconds between two JSON lines."""

Monotonic = Callable[[], float]


class Meter(Protocol):
    """Shows the progress of one pull."""

    def show(self, progress: PullProgress) -> None:
        """Show the latest progress."""
        ...


class _Every:
    """Limit an action to once per interval."""

    def __init__(self, seconds: float, monotonic: Monotonic) -> None:
        self._seconds = seconds
        self._monotonic = monotonic
        self._last: float | None = None

    def due(self) -> bool:
        now = self._monotonic()
        if self._last is not None and now - self._last < self._seconds:
            return False
        self._last = now
        return True


class PlainMeter:
    """Write a plain line every few seconds."""

    def __init__(
        self, screen: Screen, name: str, monotonic: Monotonic = time.monotonic
    ) -> None:
        self._screen = screen
        self._name = name
        self._every = _Every(LINES_EVERY_S, monotonic)
        self._every.due()  # a short pull writes only its end

    def show(self, progress: PullProgress) -> None:
        """Show the latest progress."""
        if progress.total_bytes and self._every.due():
            self._screen.write(f"{self._name}  {figures(progress)}")
            self._screen.stream.flush()


class JsonMeter:
    """Write a JSON object per line."""

    def __init__(
        self, screen: Screen, name: str, monotonic: Monotonic = time.monotonic
    ) -> None:
        self._screen = screen
        self._name = name
        self._every = _Every(JSON_EVERY_S, monotonic)

    def show(self, progress: PullProgress) -> None:
        """Show the latest progress."""
        if self._every.due():
            from herdbook.presentation import shapes  # noqa: PLC0415 - slow to import

            latest = shapes.progress(self._name, "pulling", progress)
            self._screen.write_json(latest, in_lines=True)


class BarMeter:
    """Draw a bar in the last line of a terminal."""

    def __init__(self, live: Live, name: str) -> None:
        self._live = live
        self._name = name

    def show(self, progress: PullProgress) -> None:
        """Show the latest progress."""
        # Imported late: a pipe does not need Rich.
        from rich.text import Text  # noqa: PLC0415

        width = self._live.console.width
        self._live.update(Text.assemble(*bar_line(self._name, progress, width)))


@contextmanager
def meter(screen: Screen, name: str, *, as_json: bool) -> Iterator[Meter]:
    """Yield the meter for the output: JSON lines, plain lines or a bar."""
    if as_json:
        yield JsonMeter(screen, name)
        return
    if not screen.interactive:
        yield PlainMeter(screen, name)
        return
    # Imported late: a pipe does not need Rich.
    from rich.console import Console  # noqa: PLC0415
    from rich.live import Live  # noqa: PLC0415

    with Live(console=Console(file=screen.stream), transient=True) as live:
        yield BarMeter(live, name)


def bar_line(name: str, progress: PullProgress, width: int) -> Line:
    """Return the progress of a pull as one line with a bar.

    Where the line is too long, the bar is left out first, then figures from the right.
    """
    if not progress.total_bytes:
        return (Piece(f"{name}  {progress.status or 'connecting'}"),)
    parts = _figures(progress, progress.total_bytes)
    while len(parts) > 1 and _bar_room(name, parts, width) < 0:
        parts.pop()
    room = _bar_room(name, parts, width)
    share = progress.completed_bytes / progress.total_bytes
    drawn = bar(share, min(room, WIDEST_BAR)) if room >= NARROWEST_BAR else ()
    return (Piece(f"{name}  "), *drawn, Piece(f" {GAP.join(parts)}"))


def _bar_room(name: str, parts: list[str], width: int) -> int:
    return width - len(f"{name}   {GAP.join(parts)}") - 1


def figures(progress: PullProgress) -> str:
    """Return ``38%   6.6 of 17.4 GB   41 MB/s   4 min left``."""
    total = progress.total_bytes
    return GAP.join(_figures(progress, total)) if total else progress.status


def _figures(progress: PullProgress, total: int) -> list[str]:
    done = progress.completed_bytes >= total and progress.status
    parts = [
        f"{progress.percent}%",
        wording.of_text(progress.completed_bytes, total),
        progress.status if done else wording.rate_text(progress.rate_bytes_s),
        "" if done else wording.left_text(progress.eta_s),
    ]
    return [part for part in parts if part]
