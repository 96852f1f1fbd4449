"""Charts, drawn as SVG."""

from __future__ import annotations
