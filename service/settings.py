"""Settings of the service: address, access and limits."""

from __future__ import annotations

from pathlib import Path

import msgspec

from herdbook.service.auth.tokens import Token

DEFAULT_PORT = 11435
"""The default port; Ollama's own is 11434."""


class ServiceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the service.

    Attributes:
        host: The address to listen on.
        port: The port to listen on; 0 for any free port.
        tokens: The tokens of the environment. Without tokens and token file, every
            client that reaches the loopback address is an administrator.
        token_file: A file with more tokens; changes to it apply while the service
            runs. None for none.
        hosts: Allowed values of the ``Host`` header, besides the loopback names.
        desired: File of a desired set. Its models are never proposed for deletion; it
            is read for each proposal. None for none.
        read_only: Refuse every change.
        secure: The service is reached through an HTTPS proxy: set secure cookies.
        banner: A text at the top of every page; empty for none.
        body_bytes: Maximum size of a request body, in bytes.
        header_bytes: Maximum size of request line and headers together, in bytes.
        request_within_s: Seconds in which a whole request must arrive.
        send_within_s: Seconds without progress after which a slow reader is
            disconnected.
        failures: Unknown tokens that one address may send per period.
        failures_within_s: Length of that period, in seconds.
        reader_events: Maximum number of messages queued for one event stream.
        heartbeat_s: Seconds of silence after which an event stream sends a comment.
        stop_within_s: Seconds that open requests have to finish at shutdown.
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    tokens: tuple[Token, ...] = ()
    token_file: Path | None = None
    hosts: tuple[str, ...] = ()
    desired: Path | None = None
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
