"""Compute "Did you mean" suggestions for unknown names."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches
from typing import Final

_SIMILAR_MODEL: Final = 0.75
"""Least similarity of a suggested model name, from 0 to 1."""


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Return a sentence that suggests the nearest known name; empty if none is near."""
    by_key = {str(name).lower(): str(name) for name in known}
    near = get_close_matches(given.lower(), by_key, n=1)
    return f"Did you mean {by_key[near[0]]!r}? " if near else ""


def did_you_mean_model(given: str, present: Collection[str]) -> str:
    """Return a sentence that suggests other tags of a model, and similar names.

    Empty if no model is near.
    """
    base = given.rpartition(":")[0].lower()
    tags = [each for each in present if each.rpartition(":")[0].lower() == base]
    close = get_close_matches(given, present, n=3, cutoff=_SIMILAR_MODEL)
    near = list(dict.fromkeys([*tags, *close]))
    return f"Did you mean {' or '.join(near)}?" if near else ""
