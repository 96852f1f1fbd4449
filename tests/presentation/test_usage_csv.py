"""Usage as CSV."""

from __future__ import annotations

import csv

import pytest

from herdbook.core import Usage, UsageDimension, UsageRow
from herdbook.presentation.usage import csv_text


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+ann", "'+ann"),
        ("-ann", "'-ann"),
        ("@ann", "'@ann"),
        ("a=b", "a=b"),
        ('ann "the" first, second', 'ann "the" first, second'),
        (None, ""),
    ],
)
async def test_no_name_is_a_formula(name: str | None, cell: str) -> None:
    row = UsageRow(
        group={"client": name},
        requests=1,
        failed=0,
        client_left=0,
        observed=0,
        not_recorded=0,
        loads=0,
        prompt_tokens=0,
        output_tokens=0,
        estimated_tokens=0,
        duration_s=0.0,
        duration_p50_s=None,
        duration_p95_s=None,
        first_token_p50_s=None,
        first_token_p95_s=None,
        tokens_per_s=None,
    )
    usage = Usage(by=(UsageDimension.CLIENT,), after=0, until=1, total=row, rows=(row,))
    (read,) = csv.DictReader((await csv_text(usage)).splitlines())
    assert (read["client"], read["requests"]) == (cell, "1")
