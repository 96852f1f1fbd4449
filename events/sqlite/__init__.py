"""The event store in a SQLite file."""

from __future__ import annotations
