"""Sizes as people type them."""

from __future__ import annotations

import pytest

from herdbook.core.models.sizes import parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("10GB", 10_000_000_000),
        ("10 gb", 10_000_000_000),
        ("1.5g", 1_500_000_000),
        ("5G", 5_000_000_000),
        ("8 GiB", 8 * 2**30),
        ("500m", 500_000_000),
        ("1TiB", 2**40),
        ("12B", 12),
    ],
)
def test_size_is_parsed(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "10", "GB", "-1GB", "10 apples", "1,5GB"])
def test_text_without_a_unit_is_not_a_size(text: str) -> None:
    assert parse_size(text) is None
