"""Checks of the log and of the server, as the doctor runs them."""

from __future__ import annotations
