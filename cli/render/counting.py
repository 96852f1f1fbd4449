"""Progress and result of work on many events; the progress only on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from herdbook.cli.output import GAP, Line, Piece, Screen, bar
from herdbook.projections.sentences import counted

if TYPE_CHECKING:
    from herdbook.presentation import shapes

WIDEST_BAR = 32
"""Longest bar, in characters."""

NARROWEST_BAR = 8
"""Shortest bar, in characters; a narrower line has none."""


@contextmanager
def counting(screen: Screen, text: str) -> Iterator[Callable[[int, int], None]]:
    """Show the progress of the block in the last line of a terminal.

    Args:
        screen: Where to show it.
        text: What is done, such as ``Exporting``.

    Yields:
        What to call with the number of events that are done, and of all of them.
    """
    if not screen.interactive:
        yield lambda _, __: None
        return
    # Imported late: a pipe does not need Rich.
    from rich.console import Console  # noqa: PLC0415
    from rich.live import Live  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    with Live(console=Console(file=screen.stream), transient=True) as live:

        def show(done: int, total: int) -> None:
            width = live.console.width
            live.update(Text.assemble(*count_line(text, done, total, width)))

        yield show


def count_line(text: str, done: int, total: int, width: int) -> Line:
    """Return the progress as one line: ``Exporting  ━━──   12 of 30 events``."""
    figures = f"{done:,} of {total:,} events"
    room = width - len(f"{text}  {GAP}{figures}") - 1
    drawn = bar(done / total if total else 1.0, min(room, WIDEST_BAR))
    if room < NARROWEST_BAR:
        return (Piece(f"{text}  {figures}"),)
    return (Piece(f"{text}  "), *drawn, Piece(f"{GAP}{figures}"))


def added_text(log: str, verb: str, answer: shapes.Imported | shapes.Copied) -> str:
    """Return what an import or a copy did: ``herd.db: 3 events copied; ends at #5``."""
    present = f", {answer.present:,} already there" if answer.present else ""
    added = counted(answer.added, "event")
    return f"{log}: {added} {verb}{present}; ends at #{answer.position}"
