"""HTTP below the framework: connections, parsing, hosts and paths."""

from __future__ import annotations
