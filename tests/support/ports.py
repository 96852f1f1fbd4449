"""Ports for programs that are started again at the same address."""

from __future__ import annotations

import socket


def free_port() -> int:
    """Return a port that no program listens on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port
