"""Accepting connections, no more than there are file descriptors for.

asyncio's own server accepts a hundred connections in one go, and without descriptors
logs a hundred tracebacks each time and tries again without a pause. Here one is
accepted at a time, and when descriptors run out it is logged once and waited for.
"""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

from herdbook.core.logging import Logger
from herdbook.events.file_descriptors import is_exhausted

RESERVE: Final = 16
"""Descriptors kept for the log, for requests to Ollama and for files."""

FEWEST: Final = 4
"""Connections that are tried even where there are hardly any descriptors."""

PAUSE_S: Final = 0.1
"""Seconds until the next try when a connection could not be accepted."""

LOG_EVERY_S: Final = 10.0
"""Seconds after which the same trouble is logged again."""

_FOLDERS: Final = ("/proc/self/fd", "/dev/fd")
_LOG: Final = Logger("herdbook.http")


def connections_possible(most: int) -> int:
    """Return how many connections there are descriptors for, ``most`` at most."""
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
    """Accepts connections on a listening socket while its task runs.

    Args:
        listening: The socket.
        make: Makes the protocol of a connection.
        make_room: Closes a connection that can be spared, if there is one.
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
                # Also a client that left before it was accepted.
                await self._wait(error)
                continue
            try:
                await loop.connect_accepted_socket(self._make, made)
            except OSError as error:
                made.close()
                await self._wait(error)

    async def _wait(self, error: OSError) -> None:
        """Wait for descriptors; say so, but not each time."""
        if is_exhausted(error):
            self._make_room()
        now = asyncio.get_running_loop().time()
        if self._logged_at is None or now - self._logged_at >= LOG_EVERY_S:
            self._logged_at = now
            _LOG.warning("connection_not_accepted", reason=str(error))
        await asyncio.sleep(PAUSE_S)
