"""The past: the state at a position, differences, explanations and pages of events."""

from __future__ import annotations
