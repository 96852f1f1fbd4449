"""The commands, a module for each group."""

from __future__ import annotations
