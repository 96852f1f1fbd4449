"""The sandbox's model registry, and downloads from it."""

from __future__ import annotations
