"""Interfaces of the two connections of an exchange.

An exchange knows only these, so that the classes of connections can import it.
"""

from __future__ import annotations

from typing import Protocol

from herdbook.gateway.protocol.answers import Refusal


class ClientSide(Protocol):
    """The connection of a client, as an exchange uses it."""

    def write(self, data: bytes) -> None:
        """Send bytes to the client."""

    def hold(self, *, held: bool) -> None:
        """Stop or continue to read from the client."""

    def answered(self, *, close: bool) -> None:
        """End the answer; close the connection, or wait for the next request."""

    def refuse(self, refusal: Refusal) -> None:
        """Answer with an error, and close the connection."""

    def abort(self) -> None:
        """Close the connection at once: the client sees an incomplete answer."""


class ServerSide(Protocol):
    """The connection to the server, as an exchange uses it."""

    def write(self, data: bytes) -> None:
        """Send bytes to the server."""

    def hold(self, *, held: bool) -> None:
        """Stop or continue to read from the server."""

    def release(self, *, reusable: bool) -> None:
        """Give the connection back to the pool, or close it."""
