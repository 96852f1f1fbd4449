"""Say which events are not shown, because their archive is missing or damaged."""

from __future__ import annotations

import sys


def write_missing(missing: str) -> None:
    """Write a line to the error output, unless nothing is missing.

    Args:
        missing: The archive, and what is wrong with it; empty if nothing is missing.
    """
    if missing:
        sys.stderr.write(
            f"Not shown: {missing}. Put it next to the log, or set HERDBOOK_ARCHIVES "
            "to its directory.\n"
        )
