"""Settings of a gateway."""

from __future__ import annotations

import msgspec

from herdbook.core import base_url
from herdbook.core.ollama.address import same_server

DEFAULT_HOST = "127.0.0.1"


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where a gateway listens, and its limits.

    Attributes:
        host: Address to listen on.
        port: Port to listen on; 0 for any free port.
        hosts: Accepted host names, in addition to loopback and ``host``.
        strict: Whether to answer 503 while uses cannot be recorded.
        plain: Whether to change no request: no roles, fallback lists or settings.
        roles: Whether lists of models contain the roles as models.
        head_bytes: Longest request line with its headers, bytes.
        headers: Most header lines of a request.
        connections: Most connections of clients at the same time.
        head_within_s: Time to receive a request's head, seconds.
        body_within_s: Longest pause while a request's body is sent, seconds.
        idle_within_s: Time until an idle connection of a client is closed, seconds.
        send_within_s: Longest time that a client may read nothing of an answer,
            seconds.
        connect_within_s: Time to connect to the server, seconds.
        reuse_within_s: Time until an idle connection to the server is closed, seconds.
            It is shorter than the 5 s after which common servers close theirs, so that
            no request meets a connection that is being closed.
    """

    host: str = DEFAULT_HOST
    port: int = 11436
    hosts: tuple[str, ...] = ()
    strict: bool = False
    plain: bool = False
    roles: bool = False
    head_bytes: int = 65_536
    headers: int = 128
    connections: int = 1_000
    head_within_s: float = 10.0
    body_within_s: float = 60.0
    idle_within_s: float = 75.0
    send_within_s: float = 120.0
    connect_within_s: float = 5.0
    reuse_within_s: float = 4.0

    @property
    def url(self) -> str:
        """The address to listen on, as a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def is_at(self, server: str) -> bool:
        """Return whether a server has the address that the gateway listens on.

        Args:
            server: URL of the server.
        """
        return self.port != 0 and same_server(base_url(self.url), server)
