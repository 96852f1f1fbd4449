"""Addresses of logs in databases, and that none of them shows a password."""

from __future__ import annotations

import pytest

from herdbook.events.errors import CallerError
from herdbook.events.postgres.address import PostgresAddress, is_postgres
from herdbook.events.postgres.parameters import connection_parameters


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("postgresql://ann:secret@db/herd", "postgresql://ann@db/herd"),
        ("postgres://ann:s%40cret@db:6543/herd", "postgres://ann@db:6543/herd"),
        ("postgresql://:secret@db/herd", "postgresql://@db/herd"),
        ("postgresql://ann:secret@a:1,b:2/herd", "postgresql://ann@a:1,b:2/herd"),
        ("postgresql://ann:secret@[::1]:5432/x", "postgresql://ann@[::1]:5432/x"),
        (
            "postgresql:///herd?host=/run/postgresql&password=secret&sslpassword=secret",
            "postgresql:///herd?host=/run/postgresql",
        ),
        (
            "postgresql://db/herd?sslmode=verify-full&schema=lab",
            "postgresql://db/herd?sslmode=verify-full&schema=lab",
        ),
    ],
)
def test_text_of_an_address_has_no_password(url: str, text: str) -> None:
    address = PostgresAddress(url)

    assert str(address) == text
    assert "secret" not in repr(address)
    assert "s%40cret" not in repr(address)


def test_libpq_gets_the_password_and_not_the_schema() -> None:
    address = PostgresAddress(
        "postgresql://ann:s%40c@db/herd?schema=lab&sslmode=prefer"
    )

    given = connection_parameters(address)

    assert address.schema == "lab"
    assert given["password"] == "s@c"
    assert given["sslmode"] == "prefer"
    assert "schema" not in given
    assert given["target_session_attrs"] == "read-write"


def test_plus_is_no_space() -> None:
    for url in ("postgresql://a:x+y%20z@db/h", "postgresql://db/h?password=x+y%20z"):
        assert connection_parameters(PostgresAddress(url))["password"] == "x+y z"


def test_parameters_of_the_address_replace_the_defaults() -> None:
    address = PostgresAddress("postgresql://db/herd?connect_timeout=60")

    assert connection_parameters(address)["connect_timeout"] == "60"
    assert address.schema == "herdbook"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:sec/ret@db/herd",
        "postgresql://ann:sec?ret@db/herd",
        "postgresql://ann:sec?ret=x@db/herd",
        "postgresql://ann:sec#ret@db/herd",
        "postgresql://ann:sec@ret@db/herd",
        "postgresql://ann:secret/herd",
        "postgresql://ann:secret@[db/herd",
        "postgresql://ann:secret@db:port/herd",
        "postgresql://ann:secret@db/herd?sslmode",
        "postgresql://ann:secret@d\0b/herd",
        "mysql://ann:secret@db/herd",
    ],
)
def test_bad_address_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(CallerError, match="address of the database") as caught:
        PostgresAddress(url)

    assert "sec" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or not caught.value.__context__


def test_unknown_parameter_is_refused_without_the_password() -> None:
    address = PostgresAddress("postgresql://ann:secret@db/herd?colour=red")

    with pytest.raises(CallerError, match="parameters of libpq") as caught:
        connection_parameters(address)

    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("name", ["Lab", "1st", "pg_lab", "a" * 49, "a b", ""])
def test_name_of_a_schema_has_a_narrow_form(name: str) -> None:
    with pytest.raises(CallerError, match="schema"):
        PostgresAddress(f"postgresql://db/herd?schema={name}&x=")


def test_equal_addresses_are_equal() -> None:
    one = PostgresAddress("postgresql://a:b@db/herd")

    assert one == PostgresAddress("postgresql://a:b@db/herd")
    assert one != PostgresAddress("postgresql://a:c@db/herd")
    assert len({one, PostgresAddress("postgresql://a:b@db/herd")}) == 1


def test_paths_are_not_addresses() -> None:
    assert is_postgres("postgresql://db/herd")
    assert not is_postgres("postgresql.db")
