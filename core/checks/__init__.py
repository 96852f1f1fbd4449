"""Checks of the log and of the server, for ``herdbook doctor``."""

from __future__ import annotations
