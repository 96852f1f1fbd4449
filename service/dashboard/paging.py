"""Long lists, a page at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, TypeVar

from herdbook.service.dashboard.page_request import PageRequest

T = TypeVar("T")

MOST_ROWS: Final = 500
"""Rows of a table on one page. A browser shows 500 models within a second."""

MOST_COLUMNS: Final = 50
"""Nodes that a page shows side by side: in a matrix, and above the models."""

START: Final = "start"
"""The parameter with the number of the first row, from 1."""


class Part(NamedTuple):
    """Which rows of a list a page shows.

    Attributes:
        first: Number of its first row, from 1.
        last: Number of its last row.
        total: Rows of the list.
        earlier: First row of the page before; None on the first page.
        later: First row of the next page; None on the last page.
    """

    first: int
    last: int
    total: int
    earlier: int | None
    later: int | None


def part_of(page: PageRequest, rows: Sequence[T]) -> tuple[Sequence[T], Part | None]:
    """Return the rows that a page shows, and which they are; None if it shows all."""
    total = len(rows)
    if total <= MOST_ROWS:
        return rows, None
    # Cut off: Python refuses to read a number of more than 4,300 digits.
    asked = page.request.query_params.get(START, "")[:15]
    first = min(int(asked), total) if asked.isascii() and asked.isdigit() else 1
    before = max(first - 1, 0) // MOST_ROWS * MOST_ROWS
    shown = rows[before : before + MOST_ROWS]
    last = before + len(shown)
    part = Part(
        first=before + 1,
        last=last,
        total=total,
        earlier=before - MOST_ROWS + 1 if before else None,
        later=last + 1 if last < total else None,
    )
    return shown, part
