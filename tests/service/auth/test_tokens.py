from __future__ import annotations

import hmac
import os
from pathlib import Path

import pytest

from herdbook.service.auth.tokens import (
    Principal,
    Role,
    Token,
    Tokens,
    is_token_name,
    load_tokens,
    new_token,
    read_tokens,
    sha256_of,
    take_from_environment,
)
from herdbook.service.errors import InvalidServiceError
from herdbook.service.settings import ServiceSettings

SECRET = f"hb_{'s' * 43}"
LONG = "a-token-that-somebody-thought-up"


def table(name: str = "ann", role: str = "operate", sha256: str = "") -> str:
    return (
        f'[tokens.{name}]\nrole = "{role}"\nsha256 = "{sha256 or sha256_of(SECRET)}"\n'
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.toml"
    path.touch(mode=0o600)
    return path


def test_role_includes_the_roles_before_it() -> None:
    allowed = {(a, b) for a in Role for b in Role if a.allows(b)}

    assert (Role.READ, Role.OPERATE) not in allowed
    assert (Role.OPERATE, Role.ADMIN) not in allowed
    assert len(allowed) == 6


def test_new_token_has_256_bits_and_the_token_format() -> None:
    made = {new_token() for _ in range(50)}

    assert len(made) == 50
    assert all(one.startswith("hb_") and len(one) == 3 + 43 for one in made)


def test_tokens_are_read_from_a_file(file: Path) -> None:
    file.write_text(table() + table("'b.c'", "read", sha256_of(LONG).upper()))

    assert read_tokens(file) == (
        Token(name="ann", role=Role.OPERATE, sha256=sha256_of(SECRET)),
        Token(name="b.c", role=Role.READ, sha256=sha256_of(LONG)),
    )


def test_tokens_are_read_from_the_environment_and_removed_from_it() -> None:
    environment = {
        "HERDBOOK_TOKENS": f"ann:admin:{SECRET},\n bob:read:{LONG}:x",
        "A": "",
    }

    tokens = take_from_environment(environment)

    assert environment == {"A": ""}
    assert [(token.name, token.role) for token in tokens] == [
        ("ann", Role.ADMIN),
        ("bob", Role.READ),
    ]
    assert Tokens(tokens).principal(f"{LONG}:x") == Principal(
        name="bob", role=Role.READ
    )


def test_variable_is_removed_from_this_process_and_its_children(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HERDBOOK_TOKENS", f"ann:read:{SECRET}")

    assert len(take_from_environment(os.environ)) == 1
    assert "HERDBOOK_TOKENS" not in os.environ
    assert take_from_environment(os.environ) == ()


@pytest.mark.parametrize(
    ("entry", "state"),
    [
        (SECRET, "is not written as name:role:token"),
        (f"ann:{SECRET}", "is not written as name:role:token"),
        (f"{SECRET}:read:ann", "does not have a valid name"),
        (f"ann:{SECRET}:read", "has fewer than 16 characters"),
        (f"ann:boss:{SECRET}", "has an unknown role"),
        (f"an/n:read:{SECRET}", "does not have a valid name"),
        (f"{'a' * 65}:read:{SECRET}", "does not have a valid name"),
        (f"ann:read:{SECRET[:15]}", "has fewer than 16 characters"),
        (f"ann:read:{SECRET}ä", "has characters that an HTTP header cannot contain"),
        (f"ann:read:{SECRET} ann:read:{LONG}", "is defined twice"),
        (f"ann:read:{SECRET} bob:read:{SECRET}", "is the same as that of ann"),
    ],
)
def test_error_in_the_variable_does_not_quote_the_token(entry: str, state: str) -> None:
    environment = {"HERDBOOK_TOKENS": entry}

    with pytest.raises(InvalidServiceError) as caught:
        take_from_environment(environment)

    assert state in str(caught.value)
    assert "HERDBOOK_TOKENS" in str(caught.value)
    assert SECRET[:15] not in repr(caught.value) + str(caught.value)
    assert environment == {}
    assert caught.value.__cause__ is caught.value.__context__ is None


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("", "contains no tokens"),
        ("tokens = 3", "may contain only tables"),
        (
            f'[token.ann]\nrole = "read"\nsha256 = "{sha256_of(SECRET)}"',
            "may contain only tables",
        ),
        (table() + '[other]\na = "b"', "may contain only tables"),
        (
            f'[tokens]\nann = "{SECRET}"',
            "must be a table with role and sha256",
        ),
        (
            f'[tokens.ann]\ntoken = "{SECRET}"',
            "must be a table with role and sha256",
        ),
        (
            table() + f'token = "{SECRET}"',
            "must be a table with role and sha256",
        ),
        (table(sha256=SECRET), "has a sha256 that is not 64"),
        (table(sha256="0" * 63), "has a sha256 that is not 64"),
        (table(role=SECRET), "has an unknown role"),
        ("[tokens.ann]\nrole = 1\nsha256 = 1", "has a sha256 that is not 64"),
        (table(name=SECRET), "does not have a valid name"),
        (table(name="'a b'"), "does not have a valid name"),
        (table() + table("bob"), "is the same as that of ann"),
        (f"hb = {SECRET}", "is not TOML"),
    ],
)
def test_error_in_a_file_names_it_and_never_quotes_the_token(
    file: Path, text: str, state: str
) -> None:
    file.write_text(text)

    with pytest.raises(InvalidServiceError) as caught:
        read_tokens(file)

    assert state in str(caught.value)
    assert str(file) in str(caught.value)
    assert SECRET not in f"{caught.value!r} {caught.value} {caught.value.__cause__}"


def test_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InvalidServiceError, match=r"tokens\.toml cannot be read"):
        load_tokens(tmp_path / "tokens.toml")


def test_file_and_variable_must_not_share_a_name(file: Path) -> None:
    file.write_text(table())

    def others(entry: str) -> tuple[Token, ...]:
        return take_from_environment({"HERDBOOK_TOKENS": entry})

    with pytest.raises(InvalidServiceError, match=r"ann of .* is defined twice"):
        load_tokens(file, others(f"ann:read:{LONG}"))
    assert len(load_tokens(file, others(f"bob:read:{LONG}"))) == 2


def test_file_readable_by_others_is_a_warning(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(table())
    read_tokens(file)
    quiet = capsys.readouterr()
    file.chmod(0o644)

    read_tokens(file)

    loud = capsys.readouterr()
    assert quiet.out + quiet.err == ""
    result = (loud.out + loud.err).replace("_", " ")  # however lines are shown
    assert "token file readable by others" in result


@pytest.mark.parametrize("given", [0, 1, 2, None])
def test_every_token_is_compared_regardless_of_a_match(given: int | None) -> None:
    secrets = [new_token() for _ in range(3)]
    compared: list[str] = []

    def compare(kept: str, sent: str) -> bool:
        compared.append(kept)
        return hmac.compare_digest(kept, sent)

    tokens = Tokens(
        [
            Token(name=f"n{number}", role=Role.READ, sha256=sha256_of(secret))
            for number, secret in enumerate(secrets)
        ],
        compare=compare,
    )

    found = tokens.principal("wrong" if given is None else secrets[given])

    assert compared == [sha256_of(secret) for secret in secrets]
    assert (found and found.name) == (None if given is None else f"n{given}")


@pytest.mark.parametrize("secret", ["", " ", "ä", "\udcff", "\0", "x" * 100_000])
def test_invalid_secrets_match_no_user(secret: str) -> None:
    tokens = Tokens([Token(name="a", role=Role.READ, sha256=sha256_of(SECRET))])

    assert tokens.principal(secret) is None


def test_no_secret_is_in_any_repr() -> None:
    token = Token(name="ann", role=Role.READ, sha256=sha256_of(SECRET))
    settings = ServiceSettings(tokens=(token,))

    result = f"{token!r} {token} {Tokens([token])!r} {settings!r} {settings}"
    result += repr(token.__rich_repr__())
    assert "ann" in result
    assert sha256_of(SECRET) not in result


@pytest.mark.parametrize("name", ["ann", "a.b-c_D", "7", "a" * 64])
def test_valid_token_name_is_accepted(name: str) -> None:
    assert is_token_name(name)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "ä", "a\n", "a" * 65, SECRET])
def test_invalid_token_name_is_refused(name: str) -> None:
    assert not is_token_name(name)
