"""Read a log in pages."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from herdbook.events.errors import CorruptLogError

E = TypeVar("E")

PAGE = 1000
"""Number of events per page."""


class QuerySource(Protocol):
    """A connection that runs queries by name.

    Attributes:
        subject: The log, for error messages.
    """

    subject: str

    async def run(self, query: str, /, **parameters: object) -> Sequence[Any]:
        """Run a query and return its rows."""
        ...


class Pages(NamedTuple):
    """A read in pages, so that no read holds a transaction open.

    Attributes:
        query: Name of the query of a page, with parameters ``after`` and ``limit``.
        after: Key after which the first page starts.
        limit: Maximum number of rows in total.
        key: Index of the key column, by which pages continue.
    """

    query: str
    after: int
    limit: int | None
    key: int = 0

    async def read(
        self,
        session: QuerySource,
        make: Callable[[Sequence[Any]], Iterable[E]],
        **parameters: object,
    ) -> AsyncGenerator[E, None]:
        """Yield the results of ``make`` for the rows of each page, in order.

        Raises:
            CorruptLogError: A row cannot be read; all rows before it were yielded.
        """
        after, page = self.after, PAGE
        left = sys.maxsize if self.limit is None else self.limit
        while left > 0:
            size = min(page, left)
            try:
                rows = await session.run(
                    self.query, after=after, limit=size, **parameters
                )
            except CorruptLogError:
                if size == 1:
                    raise
                page = size // 2  # the rows before the damage are in a smaller page
                continue
            for one in make(rows):
                yield one
            if len(rows) < size:
                return
            last = rows[-1][self.key]
            if type(last) is not int or last <= after:  # else endless
                raise CorruptLogError(
                    session.subject, "is not in order", "Run: herdbook verify"
                )
            after = last
            left -= size
