"""Say which events are not shown, because their archive is missing or damaged."""

from __future__ import annotations

import sys


def write_missing(missing: str) -> None:
    """Write a line to the error output, unless nothing is missing.

    Args:
        missing: The archive, what is wrong with it and what to do; empty if nothing is
            missing.
    """
    if missing:
        sys.stderr.write(f"Not shown: {missing}.\n")
