"""An idle connection to the server, whose end shows that its process ended.

A server that was restarted between two refreshes looks like one whose models were
unloaded on request. Go's HTTP server, and so Ollama, never closes an idle connection.
So an idle connection that the other side closes is evidence of a restart, and one that
stays open is evidence that there was none. A proxy in between may close idle
connections: where closing proves to mean nothing, it is ignored.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from enum import StrEnum
from typing import cast
from urllib.parse import urlsplit

from herdbook.core.clock import Clock

CONNECT_S = 1.0
"""Timeout for opening the connection, seconds: a refresh must not wait for it long."""

UNEXPLAINED = 3
"""Closed connections without a sign of a restart after which closing is ignored."""


class Continuity(StrEnum):
    """What is known about the server's process since the previous refresh."""

    SAME = "same"
    CLOSED = "closed"
    UNKNOWN = "unknown"


class HeldConnection(asyncio.Protocol):
    """One idle connection to a server, opened again at each refresh if it is closed.

    Args:
        base_url: The server's URL.
        clock: The clock, for the timeout.
    """

    def __init__(self, base_url: str, clock: Clock) -> None:
        address = urlsplit(base_url)
        self._address = address.hostname or "", address.port or 0
        self._clock = clock
        self._transport: asyncio.Transport | None = None
        self._refresh = 0
        self._completed = 0
        self._opened_at = 0
        self._closed_at: int | None = None
        self._unexplained = 0

    async def begin(self) -> None:
        """Note that a refresh begins, and open the connection if it is closed."""
        self._refresh += 1
        if self._transport is not None:
            return
        loop = asyncio.get_running_loop()
        with suppress(OSError, TimeoutError):
            async with self._clock.timeout(CONNECT_S):
                await loop.create_connection(lambda: self, *self._address)

    def continuity(self) -> Continuity:
        """Return what is known of the server's process since the last refresh began.

        Call it after the server has answered.
        """
        if self._transport is not None and self._opened_at <= self._completed:
            return Continuity.SAME
        closed = self._closed_at is not None and self._closed_at >= self._completed
        if closed and self._unexplained < UNEXPLAINED:
            return Continuity.CLOSED
        return Continuity.UNKNOWN

    def complete(self, *, restarted: bool) -> None:
        """Note that the refresh succeeded.

        Args:
            restarted: Whether it found that the server was restarted, or that a model
                which a restart would have unloaded is no longer loaded.
        """
        if self.continuity() is Continuity.CLOSED and not restarted:
            self._unexplained += 1
        self._completed = self._refresh

    def close(self) -> None:
        """Close the connection."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection; asyncio calls this."""
        # Not checked with isinstance: transports of uvloop are no asyncio.Transport.
        self._transport = cast("asyncio.Transport", transport)
        self._opened_at = self._refresh

    def data_received(self, data: bytes) -> None:  # noqa: ARG002 - of the protocol
        """Draw no conclusions: a server that writes first is a proxy, not Ollama."""
        self._unexplained = UNEXPLAINED

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the other side closed the connection; asyncio calls this.

        A timeout or an unreachable network does not show that the process ended.
        """
        if self._transport is None:
            return  # closed by this side
        self._transport = None
        if exc is None or isinstance(exc, ConnectionResetError | BrokenPipeError):
            self._closed_at = self._refresh
