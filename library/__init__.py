"""Herdbook manages the models of an Ollama server and records every change.

The library is ``herdbook.core``; ``herdbook.sync`` is the same without asyncio.
"""

from __future__ import annotations

from importlib import metadata

__all__ = ["__version__"]

__version__ = metadata.version("herdbook")
