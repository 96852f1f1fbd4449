"""What ``--version`` prints."""

from __future__ import annotations


def version_text() -> str:
    """Return the name and the installed version of the package."""
    from importlib import metadata  # noqa: PLC0415 - slow to import

    return f"herdbook {metadata.version('herdbook')}"
