"""The address of a log on a PostgreSQL server, which never shows a password.

The form is that of libpq (https://www.postgresql.org/docs/current/libpq-connect.html,
section 32.1.1.2), with all of its parameters, and ``schema``: the schema of the
database that the log is in. This module needs no driver.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit

from herdbook.events.errors import CallerError

SCHEMES: Final = ("postgresql://", "postgres://")

DEFAULT_SCHEMA: Final = "herdbook"

LONGEST_SCHEMA: Final = 48
"""Maximum length of the name of a schema: a channel for notifications, which has 63
bytes, includes it."""

_SCHEMA = re.compile(rf"[a-z_][a-z0-9_]{{0,{LONGEST_SCHEMA - 1}}}")

_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]\0]*)(:[0-9]*)?")

_SECRETS = frozenset({"password", "sslpassword"})


class PostgresAddress:
    """The address of a log.

    Args:
        url: The address, such as ``postgresql://user@host:5432/database``.

    Attributes:
        schema: The schema that the log is in.

    Raises:
        CallerError: The address is not valid.
    """

    __slots__ = ("_text", "_url", "schema")

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            query = parse_qsl(
                parts.query.replace("+", "%2B"),  # it is no space, as in libpq
                keep_blank_values=True,
                strict_parsing=bool(parts.query),
            )
        except ValueError:
            raise _invalid("cannot be read") from None  # it may quote the password
        if not url.startswith(SCHEMES) or not _is_plain(parts):
            raise _invalid("is not valid")
        self.schema = dict(query).get("schema", DEFAULT_SCHEMA)
        if not _SCHEMA.fullmatch(self.schema) or self.schema.startswith("pg_"):
            raise CallerError(
                f"schema {self.schema[:80]!r}",
                "is not valid",
                "Use lower-case letters, digits and _, at most "
                f"{LONGEST_SCHEMA} characters",
            )
        others = [(key, value) for key, value in query if key != "schema"]
        self._url = _joined(parts, parts.netloc, others)
        shown = [(key, value) for key, value in query if key not in _SECRETS]
        self._text = _joined(parts, _without_password(parts.netloc), shown)

    @property
    def url(self) -> str:
        """The address for libpq, with its password."""
        return self._url

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"PostgresAddress({self._text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PostgresAddress) and (self._url, self.schema) == (
            other._url,
            other.schema,
        )

    def __hash__(self) -> int:
        return hash((self._url, self.schema))


def is_postgres(text: str) -> bool:
    """Return whether a text is meant as the address of a PostgreSQL server."""
    return text.startswith(SCHEMES)


def _is_plain(parts: SplitResult) -> bool:
    """Return whether no part of a password can be outside of its place.

    A password that is not encoded ends at its first ``/``, ``?`` or ``#``.
    """
    user, _, hosts = parts.netloc.rpartition("@")
    return (
        not parts.fragment
        and "@" not in f"{user}{parts.path}{parts.query}"
        and all(_HOST.fullmatch(host) for host in hosts.split(","))
    )


def _joined(parts: SplitResult, netloc: str, query: list[tuple[str, str]]) -> str:
    text = f"{parts.scheme}://{netloc}{parts.path}"
    return f"{text}?{urlencode(query, quote_via=quote, safe='/,')}" if query else text


def _without_password(netloc: str) -> str:
    user, at, hosts = netloc.rpartition("@")
    return f"{user.partition(':')[0]}{at}{hosts}"


def _invalid(state: str) -> CallerError:
    return CallerError(
        "the address of the database",
        state,
        "Use postgresql://USER@HOST:PORT/DATABASE, and encode special characters in "
        "the password: %40 for @, %2F for /",
    )
