"""Write output: styled lines and tables on a terminal, plain text in a pipe, JSON.

Control characters are never written, wherever the text comes from.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, NamedTuple

import msgspec

from herdbook.cli.encoding import is_unicode
from herdbook.presentation.wording import NOTHING

if TYPE_CHECKING:
    from rich.console import Console

GAP = "   "
_INDENT = "    "
_NARROWEST = 20
"""Least characters per line of a wrapped cell."""

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
        gives_way: Order in which columns move below the row where the line is too
            long, highest first; 0 for the last to move.
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


def escaped(text: str, *, ascii_only: bool = False) -> str:
    r"""Return JSON with every non-printing character as an escape, ``\u202e``.

    Args:
        text: The JSON text.
        ascii_only: Whether to escape all other characters beyond ASCII too.
    """
    return "".join(
        c
        if (c.isprintable() or c == "\n") and (c.isascii() or not ascii_only)
        else json.dumps(c)[1:-1]
        for c in text
    )


def folded(text: str, stream: IO[str]) -> str:
    """Return a text in lines that fit the terminal, broken between words.

    A text for a pipe or a file stays one line.
    """
    if not stream.isatty():
        return text
    try:
        width = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        width = shutil.get_terminal_size().columns
    return "\n".join(_wrapped(text, width or None))


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
        max((_width(row, at, width) for row in all_rows), default=0)
        for at in range(len(columns))
    ]
    layout = _layout(columns, widths, width, headers=headers)
    lines = [*_row_lines(head, layout, is_header=True)] if headers else []
    return [*lines, *(text for row in rows for text in _row_lines(row, layout))]


def _width(row: Row, at: int, width: int | None) -> int:
    if at == 0 and row.above is not None:
        return 0
    longest = len(row.cells[at].text)
    return longest if width is not None else min(longest, WIDEST)


class _Layout(NamedTuple):
    """Positions of the columns of a table.

    Attributes:
        columns: All columns.
        widths: Characters of each column.
        shown: Indexes of the columns that are next to each other.
        stacked: Indexes of the columns below them.
        width: Characters per line; None for no limit.
        headers: Whether the table shows the names of the columns.
    """

    columns: Sequence[Column]
    widths: Sequence[int]
    shown: Sequence[int]
    stacked: Sequence[int]
    width: int | None
    headers: bool

    def room(self, indent: int) -> int | None:
        """Return the characters that are left in a line after an indent."""
        return None if self.width is None else self.width - indent


def _layout(
    columns: Sequence[Column],
    widths: Sequence[int],
    width: int | None,
    *,
    headers: bool,
) -> _Layout:
    """Choose the columns that fit next to each other; the others are stacked."""
    shown = [at for at in range(len(columns)) if widths[at]]
    stacked: list[int] = []
    while width is not None and len(shown) > 1:
        # The last column wraps, so that it needs only part of its width.
        last = shown[-1]
        wraps = not columns[last].right and not columns[last].gives_way
        needed = sum(widths[at] for at in shown) + len(GAP) * (len(shown) - 1)
        if wraps:
            needed -= max(widths[last] - _NARROWEST, 0)
        if needed <= width:
            break
        moved = max(shown, key=lambda at: columns[at].gives_way)
        moved = moved if columns[moved].gives_way else last
        shown.remove(moved)
        stacked.append(moved)
    return _Layout(columns, widths, shown, sorted(stacked), width, headers)


def _row_lines(row: Row, layout: _Layout, *, is_header: bool = False) -> Iterator[Line]:
    """Yield the lines of a row: its cells, then the cells that did not fit."""
    cells = list(row.cells)
    if row.above is not None:
        yield row.above
        cells[0] = Piece("")
    pieces: list[Piece] = []
    for at in layout.shown:
        column, (text, style) = layout.columns[at], cells[at]
        aligned = text.rjust if column.right else text.ljust
        if at != layout.shown[-1]:
            pieces += [Piece(aligned(layout.widths[at]), style), Piece(GAP)]
            continue
        indent = sum(len(piece.text) for piece in pieces)
        first, *rest = _wrapped(text, layout.room(indent))
        last = first.rjust(layout.widths[at]) if column.right else first
        yield _stripped([*pieces, Piece(last, style)])
        for more in rest:
            yield line(Piece(" " * indent), Piece(more, style))
    if not is_header:
        yield from _stacked(cells, layout)
    yield from row.below


def _stacked(cells: Sequence[Piece], layout: _Layout) -> Iterator[Line]:
    """Yield the cells that did not fit next to the others, below them."""
    for at in layout.stacked:
        text, style = cells[at]
        if not text or text == NOTHING:
            continue
        header = layout.columns[at].header.lower() if layout.headers else ""
        labelled = f"{header} {text}".lstrip()
        for each in _wrapped(labelled, layout.room(len(_INDENT))):
            yield line(_INDENT, Piece(each, style))


def _wrapped(text: str, room: int | None) -> list[str]:
    """Return a text in lines of at most ``room`` characters, broken between words."""
    if room is None or len(text) <= room:
        return [text]
    return textwrap.wrap(
        text, max(room, _NARROWEST), break_long_words=False, break_on_hyphens=False
    ) or [text]


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
            # Rich takes 80 columns where TERM is dumb, whatever COLUMNS says.
            self._console = Console(
                file=self.stream,
                highlight=False,
                width=self.width,
                height=shutil.get_terminal_size().lines,
            )
        self._console.print(Text.assemble(*pieces))

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
        shown = escaped(text.decode(), ascii_only=not is_unicode(self.stream))
        print(shown, file=self.stream, flush=in_lines)
