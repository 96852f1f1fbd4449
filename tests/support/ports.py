"""Ports for programs that are started again at the same address."""

from __future__ import annotations

import random
import socket

RANGE = range(15_000, 32_000)
"""Below the ports that Linux gives to other programs, also while ours do not run."""


def free_port() -> int:
    """Return a port that no program listens on."""
    while True:
        port = random.choice(RANGE)
        with socket.socket() as bound:
            try:
                bound.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
