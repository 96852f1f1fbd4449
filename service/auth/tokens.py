"""Tokens: who may do what. They are kept as hashes, and compared in constant time.

A plain SHA-256 suffices: it is to be slow to try every token that there could be,
and 256 random bits are that at any speed. Slow, salted hashes are for what people
think up; a token that somebody thought up nonetheless is as good as it is long.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Iterable, MutableMapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec

from herdbook.core.logging import Logger
from herdbook.core.models.toml_file import read_toml
from herdbook.service.errors import InvalidServiceError

VARIABLE: Final = "HERDBOOK_TOKENS"
"""The environment variable that tokens may come from."""

SHORTEST: Final = 16
"""Characters that a token from the environment has at least."""

MAKE_ONE: Final = "To make one: herdbook token NAME --file tokens.toml"
"""What to do without a token."""

LOOKS_SECRET: Final = re.compile(r"hb_[A-Za-z0-9_-]{20,}")
"""What a token looks like that we made; also one that was not copied whole."""

_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SHA256: Final = re.compile(r"[0-9A-Fa-f]{64}")
_KEYS: Final = frozenset({"role", "sha256"})
_LOG: Final = Logger("herdbook.tokens")


class Role(StrEnum):
    """What a token allows; each role allows what those before it do."""

    READ = "read"
    OPERATE = "operate"
    ADMIN = "admin"

    def allows(self, needed: Role) -> bool:
        """Return whether this role reaches for what needs that one."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A token as it is kept.

    Attributes:
        name: Whose it is; the log has it as the actor ``api:<name>``.
        role: What it allows.
        sha256: SHA-256 of the token, 64 hexadecimal digits in lower case.
    """

    name: str
    role: Role
    sha256: str

    def __repr__(self) -> str:
        return f"Token(name={self.name!r}, role={self.role.value!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("name", self.name), ("role", self.role)]


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks.

    Attributes:
        name: The name of the token.
        role: What it allows.
    """

    name: str
    role: Role

    @property
    def actor(self) -> str:
        """The actor that the log has for it."""
        return f"api:{self.name}"


class Tokens:
    """The tokens of a service, to find whose a secret is.

    Args:
        tokens: All of them.
        compare: What compares two hashes, in a time that does not tell how alike
            they are.
    """

    def __init__(
        self,
        tokens: Iterable[Token],
        *,
        compare: Callable[[str, str], bool] = hmac.compare_digest,
    ) -> None:
        self._tokens = tuple(tokens)
        self._compare = compare

    def __repr__(self) -> str:
        return f"Tokens({', '.join(token.name for token in self._tokens)})"

    def principal(self, secret: str) -> Principal | None:
        """Return whose token a secret is, or None; each is compared, found or not."""
        given = sha256_of(secret)
        found = None
        for token in self._tokens:
            if self._compare(token.sha256, given):
                found = token
        return None if found is None else Principal(name=found.name, role=found.role)


def new_token() -> str:
    """Return a token that nobody can guess: 256 random bits."""
    return f"hb_{secrets.token_urlsafe(32)}"


def sha256_of(secret: str) -> str:
    """Return what is kept of a token, 64 hexadecimal digits."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def is_name(text: str) -> bool:
    """Return whether a token may be called that; what looks like a token may not."""
    return bool(_NAME.fullmatch(text)) and not LOOKS_SECRET.search(text)


def gather(
    file: Path | None, environment: MutableMapping[str, str]
) -> tuple[Token, ...]:
    """Return the tokens of a file, if there is one, and those of the environment.

    Raises:
        InvalidServiceError: One of them is not valid, or two are the same.
    """
    taken = take_from_environment(environment)
    tokens = (*(read_tokens(file) if file else ()), *taken)
    _check_distinct(tokens, f"{file} and {VARIABLE}")
    return tokens


def read_tokens(path: Path) -> tuple[Token, ...]:
    """Return the tokens of a file; there must be one at least.

    Raises:
        InvalidServiceError: The file cannot be read, or a part of it is not valid.
    """
    tokens = tokens_of(read_toml(path, "token file", InvalidServiceError), path)
    if not tokens:
        raise InvalidServiceError(
            f"token file {path}",
            "has no token, and would leave the service open",
            MAKE_ONE,
        )
    if path.stat().st_mode & 0o077:
        _LOG.warning("token_file_readable_by_others", file=str(path))
    return tokens


def tokens_of(data: dict[str, object], path: Path) -> tuple[Token, ...]:
    """Return the tokens that the tables of a file are.

    Raises:
        InvalidServiceError: A part of it is not valid.
    """
    tables = data.get("tokens", {})
    if set(data) - {"tokens"} or not isinstance(tables, dict):
        _refuse(f"token file {path}", "has more than tables [tokens.<name>]")
    tokens = tuple(
        _token(table, str(name), f"token {number} of {path}")
        for number, (name, table) in enumerate(tables.items(), start=1)
    )
    _check_distinct(tokens, str(path))
    return tokens


def take_from_environment(
    environment: MutableMapping[str, str],
) -> tuple[Token, ...]:
    """Return the tokens of ``HERDBOOK_TOKENS``, and remove them from there.

    No process that this one starts has them then. What the system itself keeps of
    the environment that this process was started with, as in ``/proc``, stays.

    Raises:
        InvalidServiceError: One of them is not valid.
    """
    entries = environment.pop(VARIABLE, "").replace(",", " ").split()
    tokens = tuple(
        _token_of_entry(entry, f"token {number} of {VARIABLE}")
        for number, entry in enumerate(entries, start=1)
    )
    _check_distinct(tokens, VARIABLE)
    return tokens


def _token(table: object, name: str, where: str) -> Token:
    """Return a token of a file; what it might be by mistake is never told."""
    where = _named(name, where)
    if not isinstance(table, dict) or set(table) != _KEYS:
        _refuse(where, "is no table of role and sha256, and of nothing else")
    sha256 = table["sha256"]
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        _refuse(where, "has a sha256 that is not 64 hexadecimal digits")
    return Token(name=name, role=_role(table["role"], where), sha256=sha256.lower())


def _token_of_entry(entry: str, where: str) -> Token:
    parts = entry.split(":", 2)
    if len(parts) != 3:
        _refuse(where, "is not written as name:role:token")
    name, role, secret = parts
    where = _named(name, where)
    if len(secret) < SHORTEST:
        _refuse(where, f"has fewer than {SHORTEST} characters")
    if not (secret.isascii() and secret.isprintable()):
        _refuse(where, "has characters that no header can have")
    return Token(name=name, role=_role(role, where), sha256=sha256_of(secret))


def _named(name: str, where: str) -> str:
    """Return what an error says of a token: its name too, now that it is one."""
    if not is_name(name):
        _refuse(
            where,
            "has a name that is none",
            "Take up to 64 letters, digits, '.', '_' and '-'; not the token itself",
        )
    return f"{where}, {name},"


def _role(role: object, where: str) -> Role:
    if not isinstance(role, str) or role not in tuple(Role):
        _refuse(where, "has no role that there is", f"Roles are {', '.join(Role)}")
    return Role(role)


def _check_distinct(tokens: Iterable[Token], where: str) -> None:
    names: set[str] = set()
    hashes: dict[str, str] = {}
    for token in tokens:
        told = f"token {token.name} of {where}"
        if token.name in names:
            _refuse(told, "is there twice", "Give each a name of its own")
        if token.sha256 in hashes:
            _refuse(told, f"is the same as that of {hashes[token.sha256]}", MAKE_ONE)
        names.add(token.name)
        hashes[token.sha256] = token.name


def _refuse(subject: str, state: str, remedy: str = "") -> NoReturn:
    raise InvalidServiceError(subject, state, remedy)
