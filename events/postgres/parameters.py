"""Parameters of connections to a PostgreSQL server, and settings of their sessions."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from herdbook.events.errors import CallerError
from herdbook.events.postgres.address import PostgresAddress

STATEMENT_S = 20
"""Time that a statement may take on the server, seconds."""

LOCK_S = 5
"""Time that a statement waits for a lock of another session, seconds."""

DEFAULTS: dict[str, str | int] = {
    "application_name": "herdbook",
    "connect_timeout": 5,
    # A failover is noticed, and followed where the address names several servers.
    "target_session_attrs": "read-write",
    # A server that vanished without a word is noticed after about ten seconds.
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""Parameters of libpq that an address can replace."""

SETTINGS = (
    f"SET statement_timeout = '{STATEMENT_S}s'; SET lock_timeout = '{LOCK_S}s'; "
    f"SET idle_in_transaction_session_timeout = '{STATEMENT_S}s'; "
    "SET idle_session_timeout = 0; "
    # The functions of the log turn sequential scans off. PostgreSQL before 18 does that
    # by adding to their cost: enough to compile each append, which takes over 100 ms.
    "SET jit = off; "
    "SET default_transaction_isolation = 'read committed'; "
    "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; "
    "SET tcp_keepalives_count = 3; "
    "SET client_encoding = 'UTF8'; SET client_min_messages = 'warning'"
).encode()
"""Settings of each session, instead of those of the user and the database."""


def connection_parameters(address: PostgresAddress) -> dict[str, Any]:
    """Return the parameters for libpq.

    Raises:
        CallerError: libpq does not accept the address.
    """
    try:
        given = conninfo_to_dict(address.url)
    except psycopg.Error:
        raise CallerError(  # libpq's message may quote the password
            str(address),
            "is not a valid address",
            "Use postgresql://USER@HOST:PORT/DATABASE?PARAMETER=VALUE with the "
            "parameters of libpq, and encode special characters in the password",
        ) from None
    return {**DEFAULTS, **given}
