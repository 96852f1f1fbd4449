"""What is written where people or programs read it: text in lines, tables, JSON.

On a terminal there are colours, and columns that do not fit give way, names never;
elsewhere it is the same text, plain and whole. Characters that would steer a
terminal are never written, whoever sent them.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, NamedTuple

import msgspec

if TYPE_CHECKING:
    from rich.console import Console

GAP = "   "
WIDEST = 60
"""Characters beyond which a cell no longer widens its column."""


class Piece(NamedTuple):
    """A piece of a line, with the style that it has on a terminal."""

    text: str
    style: str = ""


Line = tuple[Piece, ...]


def line(*parts: str | Piece) -> Line:
    """Return a line of its parts."""
    return tuple(Piece(part) if isinstance(part, str) else part for part in parts)


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        header: Its name.
        gives_way: 0 for never; else the higher goes first where room is short.
        right: Whether it is aligned to the right.
    """

    header: str
    gives_way: int = 0
    right: bool = False


class Row(NamedTuple):
    """A row of a table, with what stands around it.

    Attributes:
        cells: One for each column.
        above: A line above it, which then takes the place of the first cell.
        below: Lines below it.
    """

    cells: Sequence[Piece]
    above: Line | None = None
    below: Sequence[Line] = ()


def clean(text: str) -> str:
    """Return a text without what would steer a terminal or break a line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else "�" for c in text)


def escaped(text: str) -> str:
    r"""Return JSON that is safe to show: what does not print becomes ``\u202e``."""
    return "".join(
        c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text
    )


def table_lines(
    columns: Sequence[Column],
    rows: Sequence[Row],
    *,
    width: int | None = None,
    headers: bool = True,
) -> list[Line]:
    """Return a table as lines, aligned.

    Args:
        columns: The columns.
        rows: The rows.
        width: Characters that there is room for; None: for all.
        headers: Whether the columns' names stand above.
    """
    head = Row([Piece(column.header, "bold") for column in columns])
    all_rows = [head, *rows] if headers else list(rows)
    widths = [
        max((_width(row, at) for row in all_rows), default=0)
        for at in range(len(columns))
    ]
    kept = _kept(columns, widths, width)
    return [text for row in all_rows for text in _row_lines(row, columns, widths, kept)]


def _width(row: Row, at: int) -> int:
    if at == 0 and row.above is not None:
        return 0
    return min(len(row.cells[at].text), WIDEST)


def _kept(
    columns: Sequence[Column], widths: Sequence[int], width: int | None
) -> list[int]:
    """Return which columns stay: the empty never, the others as room allows."""
    kept = [at for at in range(len(columns)) if widths[at]]
    while width is not None and len(kept) > 1:
        needed = sum(widths[at] for at in kept) + len(GAP) * (len(kept) - 1)
        first = max(kept, key=lambda at: columns[at].gives_way)
        if needed <= width or not columns[first].gives_way:
            break
        kept.remove(first)
    return kept


def _row_lines(
    row: Row, columns: Sequence[Column], widths: Sequence[int], kept: Sequence[int]
) -> list[Line]:
    cells = list(row.cells)
    if row.above is not None:
        cells[0] = Piece("")
    pieces: list[Piece] = []
    for at in kept:
        text, style = cells[at]
        aligned = text.rjust if columns[at].right else text.ljust
        last = at == kept[-1] and not columns[at].right
        pieces.append(Piece(text if last else aligned(widths[at]), style))
        if at != kept[-1]:
            pieces.append(Piece(GAP))
    above = [] if row.above is None else [row.above]
    return [*above, _stripped(pieces), *row.below]


def _stripped(pieces: Sequence[Piece]) -> Line:
    """Return a line without blanks at its end."""
    kept = list(pieces)
    while kept and not kept[-1].text.strip():
        kept.pop()
    if kept:
        kept[-1] = Piece(kept[-1].text.rstrip(), kept[-1].style)
    return tuple(kept)


def bar(share: float, width: int = 32) -> Line:
    """Return a bar of which a share, 0 to 1, is done."""
    halves = round(min(max(share, 0.0), 1.0) * width * 2)
    done = "━" * (halves // 2) + ("╸" if halves % 2 else "")
    return Piece(done, "green"), Piece("─" * (width - len(done)), "dim")


class Screen:
    """Where a verb writes to.

    Attributes:
        interactive: Whether a person looks at it.
    """

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream
        self._console: Console | None = None
        self.interactive = self.stream.isatty()

    @property
    def stream(self) -> IO[str]:
        """The stream itself; by default the standard output of the moment."""
        return sys.stdout if self._stream is None else self._stream

    @property
    def width(self) -> int | None:
        """Characters in a line of the terminal; None where there is none."""
        return shutil.get_terminal_size().columns if self.interactive else None

    def write(self, *parts: str | Piece) -> None:
        """Write a line of its parts."""
        self.write_lines([line(*parts)])

    def write_lines(self, lines: Iterable[Line]) -> None:
        """Write lines."""
        for pieces in lines:
            pure = [Piece(clean(text), style) for text, style in pieces]
            if self.interactive:
                self._write_styled(pure)
            else:
                print("".join(text for text, _ in pure), file=self.stream)

    def _write_styled(self, pieces: Sequence[Piece]) -> None:
        # Here and not above: only a terminal needs Rich.
        from rich.console import Console  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        if self._console is None:
            self._console = Console(file=self.stream, highlight=False)
        self._console.print(Text.assemble(*pieces), soft_wrap=True)

    @contextmanager
    def waiting(self, text: str, *, quiet: bool = False) -> Iterator[None]:
        """Show that something takes its time, where a person looks."""
        if quiet or not self.interactive:
            yield
            return
        # Here and not above: only a terminal needs Rich.
        from rich.console import Console  # noqa: PLC0415

        with Console(file=self.stream).status(clean(text)):
            yield

    def write_table(
        self, columns: Sequence[Column], rows: Sequence[Row], *, headers: bool = True
    ) -> None:
        """Write a table, as wide as the terminal at most."""
        self.write_lines(table_lines(columns, rows, width=self.width, headers=headers))

    def write_json(self, value: object, *, in_lines: bool = False) -> None:
        """Write a value as JSON: indented, or in one line for a stream of them."""
        text = msgspec.json.encode(value)
        if not in_lines:
            text = msgspec.json.format(text, indent=2)
        print(escaped(text.decode()), file=self.stream, flush=in_lines)
