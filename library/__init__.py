"""Herdbook manages the models of an Ollama server and records every change.

The library is ``herdbook.core``; ``herdbook.sync`` is the same without asyncio.
"""

from __future__ import annotations

__version__: str
"""The installed version."""

__all__ = ["__version__"]


def __getattr__(name: str) -> str:
    """Look up the version when it is asked for: that import is slow."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import metadata  # noqa: PLC0415 - see above

    return metadata.version("herdbook")
