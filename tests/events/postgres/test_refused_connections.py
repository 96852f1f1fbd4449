"""What is reported where a server refuses a connection, with the remedy."""

from __future__ import annotations

import psycopg
import pytest

from herdbook.events.postgres.errors import (
    NoConnectionError,
    StartingError,
    translate_connecting,
)

REFUSED = (  # as PostgreSQL 15 says it
    ('role "ann" does not exist', "does not know the user", None),
    ('role "ann" is not permitted to log in', "permit this user to log in", None),
    (
        'too many connections for role "ann"',
        "no free connection for this user or database",
        NoConnectionError,
    ),
    (
        'too many connections for database "herd"',
        "no free connection for this user or database",
        NoConnectionError,
    ),
    ("sorry, too many clients already", "has no free connection", NoConnectionError),
    ('database "herd" does not exist', "does not have the database", None),
    (
        (
            'permission denied for database "herd"\n'
            "DETAIL:  User does not have CONNECT privilege."
        ),
        "permit this user to connect to the database",
        None,
    ),
    (
        'database "herd" is not currently accepting connections',
        "does not allow connections to the database",
        None,
    ),
    ('password authentication failed for user "ann"', "refuses the user", None),
    ('Peer authentication failed for user "ann"', "refuses the user", None),
    (
        (
            'pg_hba.conf rejects connection for host "127.0.0.1", user "ann", '
            'database "herd", no encryption'
        ),
        "does not accept this user from this host",
        None,
    ),
    (
        "Passwort-Authentifizierung für Benutzer »ann« fehlgeschlagen",
        "refuses the connection: Passwort-Authentifizierung für Benutzer",
        NoConnectionError,
    ),
    (
        'root certificate file "/home/ann/.postgresql/root.crt" does not exist',
        "sslrootcert=system",
        None,
    ),
    (
        'server certificate for "db.example.org" does not match host name "db"',
        "has a certificate for another host name",
        None,
    ),
    (
        'authentication method requirement "scram-sha-256" failed',
        "as the address requires",
        None,
    ),
    ('connection is bad: invalid sslmode value: "on"', 'sslmode value: "on"', None),
    ("the database system is in recovery mode", "is recovering", StartingError),
    ("the database system is starting up", "is starting", StartingError),
)


@pytest.mark.parametrize(("says", "reported", "kind"), REFUSED)
def test_reason_of_a_refused_connection_is_reported(
    says: str, reported: str, kind: type[Exception] | None
) -> None:
    text = f'connection to server at "127.0.0.1", port 5432 failed: FATAL:  {says}'

    error = translate_connecting(psycopg.OperationalError(text), "postgresql://h/herd")

    assert reported in str(error)
    assert error.remedy
    assert isinstance(error, NoConnectionError) is (kind is not None)
    assert kind is None or isinstance(error, kind)
