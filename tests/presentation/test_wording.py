"""Sentences about several things."""

from __future__ import annotations

import pytest

from herdbook.presentation.wording import listed


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ("", ""),
        ("ab", "a, b"),
        ("abcdef", "a, b, c, d, e, f"),
        ("abcdefg", "a, b, c, d, e and 2 more"),
    ],
)
def test_many_names_are_shortened(names: str, text: str) -> None:
    assert listed(names) == text
