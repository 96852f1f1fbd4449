"""The contract of an event store, as a test suite for authors of stores.

A case is a coroutine function that gets an opener and asserts; it needs no test
framework. With pytest::

    @pytest.mark.parametrize("case", CONTRACT + SHARED_CONTRACT, ids=name_of)
    def test_my_store_keeps_the_contract(case, tmp_path):
        asyncio.run(case(lambda: MyStore.open(tmp_path / "log")))

An opener opens a log that was empty before the case. ``SHARED_CONTRACT`` is for stores
with logs that outlive them: there, every call opens the same log. ``IMPORT_CONTRACT``
is for stores that import the events of another log.
"""

from __future__ import annotations

from herdbook.events.testing.append import APPEND_CASES
from herdbook.events.testing.base import Case, Opener, Store, name_of
from herdbook.events.testing.imports import IMPORT_CASES
from herdbook.events.testing.read import READ_CASES
from herdbook.events.testing.shared import SHARED_CASES

__all__ = [
    "CONTRACT",
    "IMPORT_CONTRACT",
    "SHARED_CONTRACT",
    "Case",
    "Opener",
    "Store",
    "name_of",
]

CONTRACT: tuple[Case, ...] = APPEND_CASES + READ_CASES
"""The cases for every store."""

SHARED_CONTRACT: tuple[Case, ...] = SHARED_CASES
"""Additional cases for a store with a log that outlives it."""

IMPORT_CONTRACT: tuple[Case, ...] = IMPORT_CASES
"""Additional cases for an ``ImportingStore``."""
