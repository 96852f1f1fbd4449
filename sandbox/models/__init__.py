"""The sandbox's models: names, artifacts, catalogue and store."""

from __future__ import annotations
