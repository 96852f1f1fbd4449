"""Read sizes that people write, such as ``16GB``."""

from __future__ import annotations

import re
from typing import Final

from herdbook.events.errors import CallerError

_UNITS: Final = {
    "b": 1,
    "k": 1e3,
    "kb": 1e3,
    "kib": 2**10,
    "m": 1e6,
    "mb": 1e6,
    "mib": 2**20,
    "g": 1e9,
    "gb": 1e9,
    "gib": 2**30,
    "t": 1e12,
    "tb": 1e12,
    "tib": 2**40,
}
_SIZE: Final = re.compile(r"(\d{1,12}(?:\.\d{1,12})?) ?([a-z]+)", re.IGNORECASE)


def read_size(text: str, refused: type[CallerError] = CallerError) -> int:
    """Return the bytes of a size.

    Args:
        text: The size: ``16GB``, ``8 GiB``.
        refused: The class of the error.

    Raises:
        CallerError: As ``refused``: the text is not a size.
    """
    size = parse_size(text)
    if size is None:
        raise refused(
            f"{text[:80]!r}", "is not a size", "Use a number and a unit, such as 16GB"
        )
    return size


def parse_size(text: str) -> int | None:
    """Return the bytes of a size: ``16GB``, ``8 GiB``; None if it is not valid."""
    found = _SIZE.fullmatch(text.strip())
    unit = _UNITS.get(found[2].lower()) if found else None
    return None if found is None or unit is None else round(float(found[1]) * unit)
