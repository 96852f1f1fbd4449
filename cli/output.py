"""Write output: styled lines and tables on a terminal, plain text in a pipe, JSON.

Control characters are never written, wherever the text comes from.
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
"""Longest cell, in characters, that widens its column in a pipe."""


class Piece(NamedTuple):
    """A part of a line, with its Rich style for terminals."""

    text: str
    style: str = ""


Line = tuple[Piece, ...]


def line(*parts: str | Piece) -> Line:
    """Return a line from strings and pieces."""
    return tuple(Piece(part) if isinstance(part, str) else part for part in parts)


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        header: Name of the column.
        gives_way: Order of removal where room is short, highest first; 0 for never.
        right: Whether to align the cells to the right.
    """

    header: str
    gives_way: int = 0
    right: bool = False


class Row(NamedTuple):
    """A row of a table, with the lines around it.

    Attributes:
        cells: One per column.
        above: A line above the row, which replaces the first cell.
        below: Lines below the row.
    """

    cells: Sequence[Piece]
    above: Line | None = None
    below: Sequence[Line] = ()


def clean(text: str) -> str:
    """Return a text without control characters and line breaks."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else "�" for c in text)


def escaped(text: str) -> str:
    r"""Return JSON with every non-printing character as an escape, ``\u202e``."""
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
    """Return a table as aligned lines.

    Args:
        columns: The columns.
        rows: The rows.
        width: Characters per line; None for no limit.
        headers: Whether to start with the names of the columns.
    """
    head = Row([Piece(column.header, "bold") for column in columns])
    all_rows = [head, *rows] if headers else list(rows)
    widths = [
        max((_width(row, at) for row in all_rows), default=0)
        for at in range(len(columns))
    ]
    visible = _visible(columns, widths, width)
    return [
        text for row in all_rows for text in _row_lines(row, columns, widths, visible)
    ]


def _width(row: Row, at: int) -> int:
    if at == 0 and row.above is not None:
        return 0
    return min(len(row.cells[at].text), WIDEST)


def _visible(
    columns: Sequence[Column], widths: Sequence[int], width: int | None
) -> list[int]:
    """Return the columns to show: not the empty ones, the others as room allows."""
    visible = [at for at in range(len(columns)) if widths[at]]
    while width is not None and len(visible) > 1:
        needed = sum(widths[at] for at in visible) + len(GAP) * (len(visible) - 1)
        first = max(visible, key=lambda at: columns[at].gives_way)
        if needed <= width or not columns[first].gives_way:
            break
        visible.remove(first)
    return visible


def _row_lines(
    row: Row, columns: Sequence[Column], widths: Sequence[int], visible: Sequence[int]
) -> list[Line]:
    cells = list(row.cells)
    if row.above is not None:
        cells[0] = Piece("")
    pieces: list[Piece] = []
    for at in visible:
        text, style = cells[at]
        aligned = text.rjust if columns[at].right else text.ljust
        last = at == visible[-1] and not columns[at].right
        pieces.append(Piece(text if last else aligned(widths[at]), style))
        if at != visible[-1]:
            pieces.append(Piece(GAP))
    above = [] if row.above is None else [row.above]
    return [*above, _stripped(pieces), *row.below]


def _stripped(pieces: Sequence[Piece]) -> Line:
    """Return a line without trailing blanks."""
    trimmed = list(pieces)
    while trimmed and not trimmed[-1].text.strip():
        trimmed.pop()
    if trimmed:
        trimmed[-1] = Piece(trimmed[-1].text.rstrip(), trimmed[-1].style)
    return tuple(trimmed)


def bar(share: float, width: int = 32) -> Line:
    """Return a progress bar for a share from 0 to 1."""
    halves = round(min(max(share, 0.0), 1.0) * width * 2)
    done = "━" * (halves // 2) + ("╸" if halves % 2 else "")
    return Piece(done, "green"), Piece("─" * (width - len(done)), "dim")


class Screen:
    """The output of a verb: a terminal, a pipe or a file.

    Attributes:
        interactive: Whether the output is a terminal.
    """

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream
        self._console: Console | None = None
        self.interactive = self.stream.isatty()

    @property
    def stream(self) -> IO[str]:
        """The stream; by default the current ``sys.stdout``."""
        return sys.stdout if self._stream is None else self._stream

    @property
    def width(self) -> int | None:
        """Characters per line of the terminal; None for a pipe or a file."""
        return shutil.get_terminal_size().columns if self.interactive else None

    def write(self, *parts: str | Piece) -> None:
        """Write one line from strings and pieces."""
        self.write_lines([line(*parts)])

    def write_lines(self, lines: Iterable[Line]) -> None:
        """Write lines, styled on a terminal."""
        for pieces in lines:
            pure = [Piece(clean(text), style) for text, style in pieces]
            if self.interactive:
                self._write_styled(pure)
            else:
                print("".join(text for text, _ in pure), file=self.stream)

    def _write_styled(self, pieces: Sequence[Piece]) -> None:
        # Imported late: a pipe does not need Rich.
        from rich.console import Console  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        if self._console is None:
            self._console = Console(file=self.stream, highlight=False)
        self._console.print(Text.assemble(*pieces), soft_wrap=True)

    @contextmanager
    def waiting(self, text: str, *, quiet: bool = False) -> Iterator[None]:
        """Show a spinner on a terminal while the block runs."""
        if quiet or not self.interactive:
            yield
            return
        # Imported late: a pipe does not need Rich.
        from rich.console import Console  # noqa: PLC0415

        with Console(file=self.stream).status(clean(text)):
            yield

    def write_table(
        self, columns: Sequence[Column], rows: Sequence[Row], *, headers: bool = True
    ) -> None:
        """Write a table that fits the terminal."""
        self.write_lines(table_lines(columns, rows, width=self.width, headers=headers))

    def write_json(self, value: object, *, in_lines: bool = False) -> None:
        """Write a value as JSON: indented, or one line per value."""
        text = msgspec.json.encode(value)
        if not in_lines:
            text = msgspec.json.format(text, indent=2)
        print(escaped(text.decode()), file=self.stream, flush=in_lines)
