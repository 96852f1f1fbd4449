"""Compare the server with the log, and record what differs."""

from __future__ import annotations
