"""Tables and cards that the verbs print."""

from __future__ import annotations
