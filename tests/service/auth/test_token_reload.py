"""The tokens follow their file while the service runs."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from herdbook.service.auth.administration import revoke
from herdbook.service.auth.authentication import LOCAL, Authenticator
from herdbook.service.auth.token_file_editor import add_token, remove_token
from herdbook.service.auth.token_reload import CHECK_EVERY_S, TokenReloader
from herdbook.service.auth.tokens import Role, Token, sha256_of
from herdbook.service.errors import (
    InvalidServiceError,
    TokenConflictError,
    UnauthorizedError,
    UnknownTokenError,
)
from herdbook.service.settings import ServiceSettings

FIXED = (Token(name="env", role=Role.READ, sha256=sha256_of("from the environment")),)


class Ticks:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.toml"
    add_token(path, "ann", Role.ADMIN)
    return path


def names(source: TokenReloader) -> list[str]:
    return [token.name for token in source.tokens]


def test_file_is_checked_at_most_once_a_second(file: Path) -> None:
    ticks = Ticks()
    source = TokenReloader(FIXED, file, monotonic=ticks)
    add_token(file, "bob", Role.READ)

    ticks.now = CHECK_EVERY_S / 2
    early = source.refresh()
    ticks.now = CHECK_EVERY_S
    late = source.refresh()

    assert (early, late) == (False, True)
    assert names(source) == ["ann", "bob", "env"]


def test_forced_check_does_not_wait(file: Path) -> None:
    source = TokenReloader((), file, monotonic=Ticks())
    add_token(file, "bob", Role.READ)

    assert source.refresh(now=True)
    assert not source.refresh(now=True)


def test_replaced_file_with_the_same_time_and_size_is_read(file: Path) -> None:
    source = TokenReloader((), file, monotonic=Ticks())
    before = file.stat()
    other = file.with_name("other.toml")
    other.write_text(file.read_text().replace("tokens.ann", "tokens.bob"))
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(file)

    assert source.refresh(now=True)
    assert names(source) == ["bob"]


@pytest.mark.parametrize("content", ["", "tokens = 3", "[tokens.ann"])
def test_invalid_file_keeps_the_tokens_until_it_is_valid(
    file: Path, content: str
) -> None:
    good = file.read_text()
    source = TokenReloader(FIXED, file, monotonic=Ticks(), wall=lambda: 60.0)

    file.write_text(content)
    assert not source.refresh(now=True)

    assert names(source) == ["ann", "env"]
    assert source.error is not None
    assert str(file) in str(source.error)
    assert source.failing_since is not None
    assert source.failing_since.timestamp() == 60

    file.write_text(good)
    assert not source.refresh(now=True)
    assert [source.error, source.failing_since] == [None, None]


def test_missing_file_keeps_the_tokens(file: Path) -> None:
    source = TokenReloader((), file, monotonic=Ticks())
    file.unlink()

    assert not source.refresh(now=True)

    assert names(source) == ["ann"]
    assert source.error is not None


def test_without_a_file_nothing_is_reloaded() -> None:
    source = TokenReloader(FIXED, None)

    assert not source.refresh(now=True)
    assert source.tokens == FIXED


def test_invalid_file_fails_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(InvalidServiceError, match="cannot be read"):
        TokenReloader((), tmp_path / "tokens.toml")


def test_revoked_token_and_its_session_end(file: Path) -> None:
    secret = add_token(file, "bob", Role.OPERATE)
    authenticator = Authenticator(ServiceSettings(token_file=file), monotonic=Ticks())
    principal = authenticator.authenticate_token(secret, "127.0.0.1")
    cookie = authenticator.sessions.begin("bob").partition(";")[0].encode()
    scope = {"headers": [(b"cookie", cookie)], "client": None}
    assert authenticator.authenticate(scope) == principal
    assert authenticator.is_current(principal)

    remove_token(file, "bob")
    authenticator.refresh(now=True)

    assert not authenticator.is_current(principal)
    with pytest.raises(UnauthorizedError):
        authenticator.authenticate(scope)
    with pytest.raises(UnauthorizedError):
        authenticator.authenticate_token(secret, "127.0.0.1")


def test_last_use_is_remembered(file: Path) -> None:
    secret = add_token(file, "bob", Role.READ)
    authenticator = Authenticator(ServiceSettings(token_file=file), wall=lambda: 90.0)

    authenticator.authenticate_token(secret, "127.0.0.1")

    assert {name: at.timestamp() for name, at in authenticator.last_used.items()} == {
        "bob": 90
    }


def test_removing_a_token_keeps_the_rest_of_the_file(file: Path) -> None:
    file.write_text(f"# ours\n{file.read_text()}# end\n")
    before = file.read_text()
    add_token(file, "bob", Role.READ)

    remove_token(file, "bob")

    assert file.read_text() == before


def test_only_an_existing_and_not_the_last_token_can_be_removed(file: Path) -> None:
    with pytest.raises(UnknownTokenError, match=r"bob does not exist"):
        remove_token(file, "bob")
    with pytest.raises(InvalidServiceError, match="only token in the file"):
        remove_token(file, "ann")


def test_token_in_another_notation_is_not_removed(file: Path) -> None:
    token = f'{{role = "read", sha256 = "{sha256_of("x")}"}}'
    file.write_text(f"tokens.bob = {token}\n{file.read_text()}")

    with pytest.raises(InvalidServiceError, match="cannot be edited automatically"):
        remove_token(file, "bob")


async def test_two_requests_at_once_do_not_revoke_the_last_two_admins(
    file: Path,
) -> None:
    add_token(file, "eve", Role.ADMIN)
    authenticator = Authenticator(ServiceSettings(token_file=file))

    results = await asyncio.gather(
        *(revoke(authenticator, name, by=LOCAL) for name in ("ann", "eve")),
        return_exceptions=True,
    )

    assert sorted(map(type, results), key=str) == [type(None), TokenConflictError]
    assert names(authenticator.source) == ["eve"]
