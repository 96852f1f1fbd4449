"""Tokens: names, roles and hashes; loading them from a file and the environment.

Only SHA-256 hashes are stored. A fast hash is sufficient, because guessing 256 random
bits is not possible at any speed; slow, salted hashes protect passwords that people
choose. A token that a person chose is only as strong as it is long.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec

from herdbook.core.logging import Logger
from herdbook.core.models.toml_file import read_toml
from herdbook.service.errors import InvalidServiceError

VARIABLE: Final = "HERDBOOK_TOKENS"
"""The environment variable with tokens, each as ``name:role:token``."""

MIN_SECRET_LENGTH: Final = 16
"""Minimum length of a token from the environment, in characters."""

HOW_TO_CREATE: Final = "To create a token: herdbook token NAME"
"""The remedy of errors about missing tokens."""

SECRET_PATTERN: Final = re.compile(r"hb_[A-Za-z0-9_-]{20,}")
"""Matches generated tokens, also incomplete copies of them."""

_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SHA256: Final = re.compile(r"[0-9A-Fa-f]{64}")
_KEYS: Final = frozenset({"role", "sha256"})
_LIMITS: Final = frozenset({"models", "max_requests", "tokens_per_day"})
_PATTERN: Final = re.compile(r"[A-Za-z0-9._:/*?\[\]!-]{1,256}")
_MOST_PATTERNS: Final = 100
_LARGEST_LIMIT: Final = 2**53 - 1
_LOG: Final = Logger("herdbook.tokens")


class Role(StrEnum):
    """What a token permits; each role includes the ones before it."""

    READ = "read"
    OPERATE = "operate"
    ADMIN = "admin"

    def allows(self, needed: Role) -> bool:
        """Return whether this role includes another one."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


class TokenLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of a token in the gateway.

    Attributes:
        models: Patterns of model names, such as ``llama3*``; empty for every model.
        max_requests: Maximum number of concurrent requests; None for no limit.
        tokens_per_day: Maximum number of prompt and answer tokens per day (UTC); None
            for no limit.
    """

    models: tuple[str, ...] = ()
    max_requests: int | None = None
    tokens_per_day: int | None = None


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A token, as it is stored.

    Attributes:
        name: The name of its user; events record the actor ``api:<name>``.
        role: What the token permits.
        sha256: SHA-256 of the secret, 64 hexadecimal digits in lower case.
        limits: Its limits in the gateway.
    """

    name: str
    role: Role
    sha256: str
    limits: TokenLimits = TokenLimits()

    def __repr__(self) -> str:
        return f"Token(name={self.name!r}, role={self.role.value!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("name", self.name), ("role", self.role)]


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """The user who sent a request.

    Attributes:
        name: The name of the token.
        role: The role of the token.
        limits: What the token may use of the gateway.
    """

    name: str
    role: Role
    limits: TokenLimits = TokenLimits()

    @property
    def actor(self) -> str:
        """The actor that events record for the user."""
        return f"api:{self.name}"


class Tokens:
    """Finds the token that a secret belongs to.

    Args:
        tokens: All tokens.
        compare: Compares two hashes in constant time.
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
        """Return the user of a secret, or None if it is unknown.

        All tokens are compared in any case, so that the duration reveals nothing.
        """
        given = sha256_of(secret)
        found = None
        for token in self._tokens:
            if self._compare(token.sha256, given):
                found = token
        if found is None:
            return None
        return Principal(name=found.name, role=found.role, limits=found.limits)


def new_token() -> str:
    """Generate a token with 256 random bits."""
    return f"hb_{secrets.token_urlsafe(32)}"


def sha256_of(secret: str) -> str:
    """Return the stored form of a secret: 64 hexadecimal digits."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def is_token_name(text: str) -> bool:
    """Return whether a text is a valid name, and not by mistake a token itself."""
    return bool(_NAME.fullmatch(text)) and not SECRET_PATTERN.search(text)


def load_tokens(file: Path | None, others: tuple[Token, ...] = ()) -> tuple[Token, ...]:
    """Return the tokens of a file, if one is given, followed by other tokens.

    Raises:
        InvalidServiceError: The file is not valid, or two tokens share a name or hash.
    """
    tokens = (*(read_tokens(file) if file else ()), *others)
    _check_distinct(tokens, f"{file} and {VARIABLE}")
    return tokens


def read_tokens(path: Path) -> tuple[Token, ...]:
    """Read a token file; it must contain at least one token.

    Raises:
        InvalidServiceError: The file cannot be read or is not valid.
    """
    tokens = parse_tokens(read_toml(path, "token file", InvalidServiceError), path)
    if not tokens:
        raise InvalidServiceError(
            f"token file {path}",
            "contains no tokens, so everyone would have access",
            HOW_TO_CREATE,
        )
    if path.stat().st_mode & 0o077:
        _LOG.warning("token_file_readable_by_others", file=str(path))
    return tokens


def parse_tokens(data: dict[str, object], path: Path) -> tuple[Token, ...]:
    """Convert the content of a token file to tokens.

    Raises:
        InvalidServiceError: A part of the content is not valid.
    """
    tables = data.get("tokens", {})
    if set(data) - {"tokens"} or not isinstance(tables, dict):
        _refuse(f"token file {path}", "may contain only tables named [tokens.<name>]")
    tokens = tuple(
        _token(table, str(name), f"token {number} of {path}")
        for number, (name, table) in enumerate(tables.items(), start=1)
    )
    _check_distinct(tokens, str(path))
    return tokens


def take_from_environment(
    environment: MutableMapping[str, str],
) -> tuple[Token, ...]:
    """Return the tokens of ``HERDBOOK_TOKENS`` and remove the variable.

    Child processes then do not inherit it. The environment that the system recorded
    at the start of this process, as in ``/proc``, cannot be changed.

    Raises:
        InvalidServiceError: A token is not valid.
    """
    entries = environment.pop(VARIABLE, "").replace(",", " ").split()
    tokens = tuple(
        _token_of_entry(entry, f"token {number} of {VARIABLE}")
        for number, entry in enumerate(entries, start=1)
    )
    _check_distinct(tokens, VARIABLE)
    return tokens


def _token(table: object, name: str, where: str) -> Token:
    """Return a token of a file; errors never quote values, which could be secrets."""
    where = _with_name(name, where)
    if not isinstance(table, dict) or set(table) - _LIMITS != _KEYS:
        limits = ", ".join(sorted(_LIMITS))
        _refuse(where, f"must be a table with role and sha256, and may have {limits}")
    sha256 = table["sha256"]
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        _refuse(where, "has a sha256 that is not 64 hexadecimal digits")
    return Token(
        name=name,
        role=_role(table["role"], where),
        sha256=sha256.lower(),
        limits=token_limits({key: table[key] for key in _LIMITS & set(table)}, where),
    )


def token_limits(given: Mapping[str, object], where: str) -> TokenLimits:
    """Return limits of a token after checking them.

    Args:
        given: The limits by name, such as ``max_requests``.
        where: The subject of errors.

    Raises:
        InvalidServiceError: A limit is not valid.
    """
    models = given.get("models", ())
    if not isinstance(models, list | tuple) or len(models) > _MOST_PATTERNS:
        _refuse(
            where, f"may have a list of at most {_MOST_PATTERNS} model name patterns"
        )
    for pattern in models:
        if not isinstance(pattern, str) or not _PATTERN.fullmatch(pattern):
            _refuse(where, "has an invalid model name pattern", "Write: llama3*")
    numbers = {}
    for name in ("max_requests", "tokens_per_day"):
        number = given.get(name)
        is_number = type(number) is int and 1 <= number <= _LARGEST_LIMIT
        if number is not None and not is_number:
            _refuse(where, f"has a {name} that is not a whole number of at least 1")
        numbers[name] = number
    return msgspec.convert({"models": tuple(models), **numbers}, TokenLimits)


def _token_of_entry(entry: str, where: str) -> Token:
    parts = entry.split(":", 2)
    if len(parts) != 3:
        _refuse(where, "is not written as name:role:token")
    name, role, secret = parts
    where = _with_name(name, where)
    if len(secret) < MIN_SECRET_LENGTH:
        _refuse(where, f"has fewer than {MIN_SECRET_LENGTH} characters")
    if not (secret.isascii() and secret.isprintable()):
        _refuse(where, "has characters that an HTTP header cannot contain")
    return Token(name=name, role=_role(role, where), sha256=sha256_of(secret))


def _with_name(name: str, where: str) -> str:
    """Add a token's name to the subject of an error, once it is known to be a name."""
    if not is_token_name(name):
        _refuse(
            where,
            "does not have a valid name",
            "Use up to 64 letters, digits, '.', '_' and '-'; not the token itself",
        )
    return f"{where}, {name},"


def _role(role: object, where: str) -> Role:
    if not isinstance(role, str) or role not in tuple(Role):
        _refuse(where, "has an unknown role", f"Use one of {', '.join(Role)}")
    return Role(role)


def _check_distinct(tokens: Iterable[Token], where: str) -> None:
    names: set[str] = set()
    hashes: dict[str, str] = {}
    for token in tokens:
        subject = f"token {token.name} of {where}"
        if token.name in names:
            _refuse(subject, "is defined twice", "Use each name once")
        if token.sha256 in hashes:
            _refuse(
                subject, f"is the same as that of {hashes[token.sha256]}", HOW_TO_CREATE
            )
        names.add(token.name)
        hashes[token.sha256] = token.name


def _refuse(subject: str, state: str, remedy: str = "") -> NoReturn:
    raise InvalidServiceError(subject, state, remedy)
