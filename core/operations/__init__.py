"""Pulls, loads and unloads: operations that change the server."""

from __future__ import annotations
