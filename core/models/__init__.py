"""What is known about a model: names, catalogue, capabilities and settings."""

from __future__ import annotations
