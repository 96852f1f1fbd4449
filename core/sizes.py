"""Read sizes that people write, such as ``16GB``."""

from __future__ import annotations

import re
from typing import Final

_UNITS: Final = {
    "kb": 1e3,
    "mb": 1e6,
    "gb": 1e9,
    "tb": 1e12,
    "gib": 2**30,
    "mib": 2**20,
}
_SIZE: Final = re.compile(r"(\d{1,12}(?:\.\d{1,12})?) ?([a-z]+)", re.IGNORECASE)


def parse_size(text: str) -> int | None:
    """Return the bytes of a size: ``16GB``, ``8 GiB``; None if it is none."""
    found = _SIZE.fullmatch(text.strip())
    unit = _UNITS.get(found[2].lower()) if found else None
    return None if found is None or unit is None else round(float(found[1]) * unit)
