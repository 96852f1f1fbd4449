"""What a service is started with."""

from __future__ import annotations

import msgspec

from herdbook.service.auth.tokens import Token

DEFAULT_PORT = 11435
"""The port beside Ollama's own, 11434."""


class ServiceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a service listens, whom it lets in, and how much it takes.

    Attributes:
        host: The address to listen on.
        port: The port; 0 for any that is free.
        tokens: Who may do what; without any, whoever reaches a loopback address
            may do everything.
        hosts: Names, beside those of the loopback interface, by which it may be
            addressed.
        read_only: Whether nobody may change anything through it.
        secure: Whether browsers reach it through HTTPS, at a proxy before it.
        banner: What every page says at its top; empty for nothing.
        body_bytes: The longest body that is taken.
        header_bytes: The longest request line with its headers.
        request_within_s: Seconds in which a request must have come in.
        send_within_s: Seconds for which a reader may take nothing of what is sent.
        failures: How many wrong tokens an address may send ...
        failures_within_s: ... in so many seconds.
        reader_events: Messages that wait for a reader of the stream at most.
        heartbeat_s: Seconds of silence after which the stream sends a comment.
        stop_within_s: Seconds that requests under way have to end when it stops.
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    tokens: tuple[Token, ...] = ()
    hosts: tuple[str, ...] = ()
    read_only: bool = False
    secure: bool = False
    banner: str = ""
    body_bytes: int = 65_536
    header_bytes: int = 16_384
    request_within_s: float = 10.0
    send_within_s: float = 20.0
    failures: int = 10
    failures_within_s: float = 60.0
    reader_events: int = 1_000
    heartbeat_s: float = 15.0
    stop_within_s: float = 2.5
