"""The verbs of the command, one module per group."""

from __future__ import annotations
