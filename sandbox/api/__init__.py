"""The sandbox's HTTP endpoints."""

from __future__ import annotations
