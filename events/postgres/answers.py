"""Wait for the answers of a server: errors are translated, and every wait ends."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg

from herdbook.events.errors import CallerError
from herdbook.events.postgres.errors import ConnectionLostError, translate


@contextmanager
def answering(
    connection: psycopg.AsyncConnection[Any], limit_s: float, subject: str
) -> Iterator[None]:
    """Translate the errors of statements, and cut the connection if they take too long.

    A cancellation would not end them in time: the driver first cancels the statement on
    the server, and waits for that.

    Args:
        connection: The connection that runs them.
        limit_s: Time until it is cut, seconds.
        subject: Address of the log, without a password.

    Raises:
        ConnectionLostError: The connection was lost, or cut.
        CallerError: A value cannot be stored.
        StoreError: A statement failed.
    """
    is_late = False

    def cut() -> None:
        nonlocal is_late
        is_late = True
        with (
            suppress(psycopg.Error, OSError),
            socket.socket(fileno=os.dup(connection.pgconn.socket)) as same,
        ):
            same.shutdown(socket.SHUT_RDWR)

    timer = asyncio.get_running_loop().call_later(limit_s, cut)
    try:
        yield
    except psycopg.DataError as error:  # a NUL, or a number out of range
        raise CallerError(subject, f"cannot store a value: {error}") from error
    except psycopg.Error as error:
        if is_late:
            raise ConnectionLostError(
                subject, f"did not answer within {limit_s:.0f} s"
            ) from None
        raise translate(error, subject) from error
    except OSError as error:
        raise ConnectionLostError(subject, f"lost the connection: {error}") from error
    finally:
        timer.cancel()
