"""Authentication: bearer tokens, sessions and forms."""

from __future__ import annotations
