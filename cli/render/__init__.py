"""Tables and cards that the commands print."""

from __future__ import annotations
