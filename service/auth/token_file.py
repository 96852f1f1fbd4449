"""The token file: a token is added to what is there, and nothing else changes.

What a person wrote stays to the byte, comments too. The file is written beside
itself and then put in place, so that it is never half there; those who add at the
same time wait for one another.
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from herdbook.service.auth.tokens import (
    Role,
    Token,
    is_name,
    new_token,
    sha256_of,
    tokens_of,
)
from herdbook.service.errors import InvalidServiceError

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_TABLE: Final = re.compile(
    rb"[ \t]*\[[ \t]*tokens[ \t]*\.[ \t]*(\"?)(?P<name>[A-Za-z0-9._-]+)\1[ \t]*\]"
    rb"[ \t]*(#.*)?"
)
_ANY_TABLE: Final = re.compile(rb"[ \t]*\[")
_MODE: Final = 0o600


def add_token(path: Path, name: str, role: Role, *, replace: bool = False) -> str:
    """Make a token, keep its hash in a file, and return it: it is nowhere else.

    Args:
        path: The file; it is made, for its owner alone, if it is not there.
        name: Whose it is to be.
        role: What it is to allow.
        replace: Whether one of that name gives way to it.

    Raises:
        InvalidServiceError: The name is none or taken, or the file is not valid, or
            cannot be written.
    """
    if not is_name(name):
        raise InvalidServiceError(
            "the name",
            "is none for a token",
            "Take up to 64 letters, digits, '.', '_' and '-'",
        )
    secret = new_token()
    token = Token(name=name, role=role, sha256=sha256_of(secret))
    try:
        with _alone(path.resolve().parent):
            _add(path, token, replace=replace)
    except OSError as error:
        raise InvalidServiceError(
            f"token file {path}", f"cannot be written: {error.strerror}"
        ) from error
    return secret


def _add(path: Path, token: Token, *, replace: bool) -> None:
    before = path.read_bytes() if path.exists() else b""
    known = {one.name: one for one in _tokens(before, path)}
    if token.name not in known:
        after = _with_table(before, token)
    elif replace:
        after = _without_table(before, token.name) + _table(token, before)
    else:
        raise InvalidServiceError(
            f"token {token.name}",
            f"is in {path} already",
            "Take another name, or replace it with --replace",
        )
    if not _has(after, _expected(known, token), path):
        raise InvalidServiceError(
            f"token {token.name}",
            f"is written in {path} in a way that is only for people to change",
            "Remove it there, then try again",
        )
    _put_in_place(path, after)


def _has(content: bytes, tokens: tuple[Token, ...], path: Path) -> bool:
    try:
        return _tokens(content, path) == tokens
    except InvalidServiceError:
        return False


def _expected(known: dict[str, Token], token: Token) -> tuple[Token, ...]:
    others = (one for one in known.values() if one.name != token.name)
    return (*others, token)


def _tokens(content: bytes, path: Path) -> tuple[Token, ...]:
    """Return the tokens of what a file has or is to have.

    Raises:
        InvalidServiceError: It is not valid.
    """
    try:
        return tokens_of(tomllib.loads(content.decode()), path)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidServiceError(
            f"token file {path}", f"is not TOML: {error}"
        ) from error


def _with_table(before: bytes, token: Token) -> bytes:
    end = b"" if not before or before.endswith(b"\n") else b"\n"
    return before + end + _table(token, before)


def _table(token: Token, before: bytes) -> bytes:
    """Return a token as it stands in the file, after a line that is empty."""
    name = token.name if _BARE.fullmatch(token.name) else f'"{token.name}"'
    gap = "\n" if before.strip() else ""
    text = f'{gap}[tokens.{name}]\nrole = "{token.role.value}"\n'
    return f'{text}sha256 = "{token.sha256}"\n'.encode()


def _without_table(before: bytes, name: str) -> bytes:
    """Return a file without the table of a token, and the rest to the byte."""
    kept: list[bytes] = []
    inside = False
    for line in before.splitlines(keepends=True):
        if _ANY_TABLE.match(line):
            found = _TABLE.fullmatch(line.rstrip(b"\r\n"))
            inside = found is not None and found["name"] == name.encode()
        if not inside or line.lstrip().startswith(b"#"):
            kept.append(line)
    return b"".join(kept).rstrip(b"\r\n") + b"\n" if kept else b""


def _put_in_place(path: Path, content: bytes) -> None:
    """Write a file beside the one that it replaces, whole, and with its mode."""
    target = path.resolve()
    mode = target.stat().st_mode & 0o777 if target.exists() else _MODE
    number, beside = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(number, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(beside).replace(target)
    except BaseException:
        with suppress(OSError):
            Path(beside).unlink()
        raise


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a folder against others who add a token there at the same time."""
    number = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)
