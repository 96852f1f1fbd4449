"""Accept connections within the limit of file descriptors.

The server of asyncio (Python 3.11) accepts up to a hundred connections per wakeup. If
file descriptors run out, it logs a traceback for each. This module accepts one
connection at a time; if descriptors run out, it logs that once and waits.
"""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

from herdbook.core.logging import Logger
from herdbook.events.shared.file_descriptors import is_exhausted

RESERVE: Final = 16
"""File descriptors reserved for the log, requests to Ollama and other files."""

FEWEST: Final = 4
"""Minimum number of connections, even if almost no descriptors are left."""

PAUSE_S: Final = 0.1
"""Seconds to wait after a connection could not be accepted."""

LOG_EVERY_S: Final = 10.0
"""Minimum time between two log messages about it, in seconds."""

_FOLDERS: Final = ("/proc/self/fd", "/dev/fd")
_LOG: Final = Logger("herdbook.http")


def connections_possible(most: int) -> int:
    """Return how many connections the descriptor limit allows, up to ``most``."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return most
    return max(FEWEST, min(most, limit - _open_files() - RESERVE))


def _open_files() -> int:
    for folder in _FOLDERS:
        try:
            return sum(1 for _ in Path(folder).iterdir())
        except OSError:
            continue
    return RESERVE


class Acceptor:
    """Accepts connections on a listening socket.

    Args:
        listening: The socket.
        make: Creates the protocol of a connection.
        make_room: Closes an idle connection, if there is one.
    """

    def __init__(
        self,
        listening: socket.socket,
        make: Callable[[], asyncio.Protocol],
        make_room: Callable[[], object],
    ) -> None:
        listening.setblocking(False)
        self._listening = listening
        self._make = make
        self._make_room = make_room
        self._logged_at: float | None = None

    async def run(self) -> None:
        """Accept until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                made, _ = await loop.sock_accept(self._listening)
            except OSError as error:
                # Includes a client that disconnected before it was accepted.
                await self._wait(error)
                continue
            try:
                await loop.connect_accepted_socket(self._make, made)
            except OSError as error:
                made.close()
                await self._wait(error)

    async def _wait(self, error: OSError) -> None:
        """Wait for free descriptors, and log at intervals."""
        if is_exhausted(error):
            self._make_room()
        now = asyncio.get_running_loop().time()
        if self._logged_at is None or now - self._logged_at >= LOG_EVERY_S:
            self._logged_at = now
            _LOG.warning("connection_not_accepted", reason=str(error))
        await asyncio.sleep(PAUSE_S)
