"""Translate the errors of PostgreSQL to errors of Herdbook.

A running statement fails with an SQLSTATE
(https://www.postgresql.org/docs/current/errcodes-appendix.html). libpq reports a
failed connection as text alone, so that table is by text; an unknown text is shown as
it is. Neither has a password in it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import psycopg

from herdbook.events.errors import (
    VERIFY_OR,
    ConflictError,
    CorruptLogError,
    InterruptedWriteError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
)

CHECK_ADDRESS = "Check the address, and that the server is running and reachable"

READ_ONLY = "is read-only: it is a replica, or default_transaction_read_only is on"

USE_PRIMARY = (
    "Use the address of the primary, or list all servers: "
    "postgresql://USER@HOST1,HOST2/DATABASE"
)


class ConnectionLostError(InterruptedWriteError):
    """The connection was lost while a statement ran; it may be committed."""


class NotPermittedError(StoreUnavailableError):
    """The role of the connection lacks a privilege."""


class NoConnectionError(StoreUnavailableError):
    """There is no connection, and another attempt may succeed; nothing was written."""


class StartingError(NoConnectionError):
    """The server is starting, and will soon accept connections."""


class ReplanError(ConflictError):
    """The log has changed since the group was planned; nothing was written."""


class ConstraintError(ReplanError):
    """A constraint or a trigger of the log refuses the group."""


class _Known(NamedTuple):
    """An error that is known by a part of its text.

    Attributes:
        text: The part, a regular expression.
        kind: The class of the error.
        state: The problem.
        remedy: How to fix it.
    """

    text: str
    kind: type[StoreUnavailableError]
    state: str
    remedy: str


_ON_CONNECTING = (
    _Known(
        "authentication failed for user",
        StoreUnavailableError,
        "refuses the user or the password",
        "Correct the address, or use a password file: PGPASSFILE",
    ),
    _Known(
        "no password supplied",
        StoreUnavailableError,
        "asks for a password",
        "Add it to the address, or to a password file: PGPASSFILE",
    ),
    _Known(
        "no pg_hba.conf entry|pg_hba.conf rejects",
        StoreUnavailableError,
        "does not accept this user from this host",
        "Allow it in pg_hba.conf, or add sslmode=require to the address",
    ),
    _Known(
        'role ".*" does not exist',
        StoreUnavailableError,
        "does not know the user",
        "Correct the user, or create it: CREATE USER",
    ),
    _Known(
        "is not permitted to log in",
        StoreUnavailableError,
        "does not permit this user to log in",
        "Allow it: ALTER ROLE NAME LOGIN, or use another user",
    ),
    _Known(
        "permission denied for database",
        StoreUnavailableError,
        "does not permit this user to connect to the database",
        "Allow it: GRANT CONNECT ON DATABASE to the user",
    ),
    _Known(
        "is not currently accepting connections",
        StoreUnavailableError,
        "does not allow connections to the database",
        "Allow them: ALTER DATABASE NAME WITH ALLOW_CONNECTIONS true",
    ),
    _Known(
        "too many connections for",
        NoConnectionError,
        "has no free connection for this user or database",
        "Raise the CONNECTION LIMIT of the role or of the database, or stop other "
        "clients: an instance needs four connections",
    ),
    _Known(
        'database ".*" does not exist',
        StoreUnavailableError,
        "does not have the database",
        "Correct its name, or create it: createdb",
    ),
    _Known(
        "session is read-only",
        NoConnectionError,
        READ_ONLY,
        USE_PRIMARY,
    ),
    _Known(
        "certificate verify failed",
        StoreUnavailableError,
        "has a certificate that cannot be verified",
        "Set sslrootcert in the address to the CA certificate file",
    ),
    _Known(
        "root certificate file",
        StoreUnavailableError,
        "cannot be verified: there is no file of CA certificates",
        "Add sslrootcert=system to the address for the CAs of this computer, or "
        "sslrootcert=FILE for the CA of the server",
    ),
    _Known(
        "does not match host name",
        StoreUnavailableError,
        "has a certificate for another host name",
        "Use the host name of the certificate in the address, or sslmode=verify-ca",
    ),
    _Known(
        "channel binding required|authentication method requirement",
        StoreUnavailableError,
        "does not authenticate the user as the address requires",
        "Change channel_binding or require_auth in the address, or pg_hba.conf",
    ),
    _Known(
        "server does not support SSL",
        StoreUnavailableError,
        "does not support TLS",
        "Enable it on the server, or remove sslmode from the address",
    ),
    _Known(
        "too many clients",
        NoConnectionError,
        "has no free connection",
        "Raise max_connections, or stop other clients",
    ),
    _Known(
        "remaining connection slots",
        NoConnectionError,
        "has no free connection",
        "Raise max_connections, or stop other clients",
    ),
    _Known(
        "could not translate host name",
        NoConnectionError,
        "has an unknown host name",
        "Correct the host name in the address",
    ),
    _Known(
        "failed to resolve host",
        NoConnectionError,
        "has an unknown host name",
        "Correct the host name in the address",
    ),
    _Known(
        "Connection refused",
        NoConnectionError,
        "is not reachable: the connection was refused",
        CHECK_ADDRESS,
    ),
    _Known(
        "timeout expired",
        NoConnectionError,
        "is not reachable: it does not answer",
        CHECK_ADDRESS,
    ),
    _Known(
        "starting up",
        StartingError,
        "is starting",
        "Try again in a few seconds",
    ),
    _Known(
        "in recovery mode",
        StartingError,
        "is recovering from a crash",
        "Try again in a few seconds",
    ),
    _Known(
        "not yet accepting connections",
        StartingError,
        "is starting",
        "Try again in a few seconds",
    ),
    _Known(
        "shutting down",
        NoConnectionError,
        "is shutting down",
        "Start it again",
    ),
)

_REFUSAL = re.compile(r"failed: \w+:  (.+)")
"""An answer of the server, in the language of its ``lc_messages``."""

_INVALID = re.compile(r"is bad: (invalid .+)")
"""A parameter that libpq does not accept."""

_BY_STATE: dict[str, tuple[type[StoreError], str, str]] = {
    "23": (ConstraintError, "has changed in the meantime", "Read it again, then retry"),
    "40": (ReplanError, "has changed in the meantime", "Read it again, then retry"),
    "25006": (
        ConnectionLostError,
        READ_ONLY,
        USE_PRIMARY,
    ),
    "42501": (
        NotPermittedError,
        "does not permit this user to use the log",
        "GRANT USAGE ON its schema, and ALL ON ALL TABLES IN it, to the user",
    ),
    "42": (
        CorruptLogError,
        "lacks a table or a function of the log",
        f"{VERIFY_OR}restore a backup of the database",
    ),
    "P0002": (CorruptLogError, "has no head row", "Run: herdbook verify"),
    "53100": (
        StoreFullError,
        "cannot grow: its disk is full",
        "Free some disk space on the server",
    ),
    "53": (
        StoreUnavailableError,
        "has too little memory or too many connections",
        "Reduce the load on the server, or raise its limits",
    ),
    "55P03": (
        StoreUnavailableError,
        "is locked by another session",
        "Retry later, or end the session that holds the lock: see pg_locks",
    ),
    "57014": (
        StoreUnavailableError,
        "takes too long to answer",
        "Retry later, or find out what is slowing the server down",
    ),
    "XX001": (
        CorruptLogError,
        "is damaged",
        "Restore a backup of the database",
    ),
    "XX002": (CorruptLogError, "has a damaged index", "Rebuild it: REINDEX"),
}


def translate(error: psycopg.Error, subject: str) -> StoreError:
    """Return the error of Herdbook for a statement that failed.

    Args:
        error: The error of the driver.
        subject: Address of the log, without a password.
    """
    code = error.sqlstate or ""
    if code[:3] == "57P" or code[:2] == "08" or not code:  # the session has ended
        return ConnectionLostError(
            subject, f"lost the connection: {_reason_of(error)}", CHECK_ADDRESS
        )
    known = _BY_STATE.get(code) or _BY_STATE.get(code[:2])
    if known is None:
        return StoreUnavailableError(subject, f"failed: {text_of(error)} ({code})")
    kind, state, remedy = known
    return kind(subject, state, f"{remedy} ({text_of(error)})")


def translate_connecting(error: Exception, subject: str) -> StoreUnavailableError:
    """Return the error of Herdbook for a connection that could not be made."""
    text = text_of(error)
    for known in _ON_CONNECTING:
        if re.search(known.text, text):
            return known.kind(subject, known.state, known.remedy)
    if invalid := _INVALID.search(text):
        return StoreUnavailableError(
            subject, f"is not a valid address: {invalid[1]}", "Correct the parameter"
        )
    if answer := _REFUSAL.search(text):
        return NoConnectionError(
            subject,
            f"refuses the connection: {answer[1]}",
            "See the log of the server for the reason",
        )
    return NoConnectionError(subject, f"cannot be reached: {text}", CHECK_ADDRESS)


def _reason_of(error: psycopg.Error) -> str:
    """Return why a connection was lost, without the guesses that libpq adds."""
    text = text_of(error)
    if "server closed the connection unexpectedly" in text:
        return "the server closed it"
    return text.partition("; ")[0].rstrip(".")


def said(error: Exception) -> str:
    """Return what the driver said behind an error, in parentheses; empty if nothing."""
    return f" ({text_of(error.__cause__)})" if error.__cause__ else ""


def text_of(error: BaseException) -> str:
    """Return the message of an error in one line, without the address."""
    primary = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    text = primary or str(error) or type(error).__name__
    return "; ".join(line.strip() for line in text.splitlines() if line.strip())
