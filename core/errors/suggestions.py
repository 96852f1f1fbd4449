"""Compute "Did you mean" suggestions for unknown names."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches
from typing import Final

_SIMILAR_MODEL: Final = 0.75
"""Least similarity of a suggested model name, from 0 to 1."""


_MOST_NAMED: Final = 4
"""Most models in a suggestion."""


def did_you_mean(given: str, known: Iterable[str], *, similarity: float = 0.6) -> str:
    """Return a sentence that suggests the nearest known name; empty if none is near.

    Args:
        given: The unknown name.
        known: The known names.
        similarity: Least similarity of a suggested name, from 0 to 1; as ``difflib``.
    """
    by_key = {str(name).lower(): str(name) for name in known}
    near = get_close_matches(given.lower(), by_key, n=1, cutoff=similarity)
    return f"Did you mean {by_key[near[0]]!r}? " if near else ""


def did_you_mean_model(given: str, present: Collection[str]) -> str:
    """Return a sentence that suggests other tags of a model, and similar names.

    Empty if no model is near.
    """
    near = similar_models(given, present)
    if len(near) < 2:
        return f"Did you mean {near[0]}?" if near else ""
    return f"Did you mean {', '.join(near[:-1])} or {near[-1]}?"


def similar_models(given: str, present: Collection[str]) -> list[str]:
    """Return the other tags of a model, and models with similar names.

    A name may lack its first parts: ``tiny`` is similar to ``hf.co/ann/tiny``.
    """
    typed = given.lower().removesuffix(":latest")
    base = typed.partition(":")[0]
    by_base: dict[str, list[str]] = {}
    by_last: dict[str, list[str]] = {}
    known: dict[str, list[str]] = {}
    for each in present:
        name = each.lower().rpartition(":")[0]
        by_base.setdefault(name, []).append(each)
        by_last.setdefault(_last_part(name), []).append(each)
        # A typed name without a tag is compared with names without theirs.
        key = name if ":" not in typed else each.lower()
        for part in dict.fromkeys((key, _last_part(key))):
            known.setdefault(part, []).append(each)
    close = get_close_matches(typed, known, n=3, cutoff=_SIMILAR_MODEL)
    begin = [name for name in by_base if name.startswith(base)] if len(base) > 1 else []
    near = dict.fromkeys(
        [
            *by_base.get(base, []),
            *by_last.get(_last_part(base), []),
            *(name for key in close for name in known[key]),
        ]
        or [name for key in begin for name in by_base[key]]
    )
    return [*near][:_MOST_NAMED]


def _last_part(name: str) -> str:
    return name.rpartition("/")[2]
