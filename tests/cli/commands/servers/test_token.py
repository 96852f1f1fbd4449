from __future__ import annotations

import stat
import sys
import threading
from pathlib import Path

import pytest
from support.cli_runner import Herdbook

from herdbook.cli import run
from herdbook.service.auth.token_file_editor import add_token
from herdbook.service.auth.tokens import Role, TokenLimits, Tokens, read_tokens

WRITTEN = """\
# Who may ask.

[tokens.ann]   # since May
sha256 = '%s'   # of her own
role = "operate"

   [ tokens . "b.c" ]
role = "read"
sha256 = "%s"
# The end, without a newline"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokens.toml"


@pytest.fixture
def written(file: Path) -> Path:
    file.write_text(WRITTEN % ("a" * 64, "B" * 64))
    file.chmod(0o640)
    return file


def test_token_is_printed_once_and_its_hash_is_kept(
    herdbook: Herdbook, file: Path
) -> None:
    answer = herdbook("token", "ann", "--role", "operate", "--file", str(file))

    hint = f"For the service: herdbook serve --tokens {file}\n"
    assert (answer.code, answer.err) == (0, hint)
    secret = answer.out.strip()
    assert answer.out == f"{secret}\n"
    assert secret not in file.read_text()
    principal = Tokens(read_tokens(file)).principal(secret)
    assert principal is not None
    assert (principal.actor, principal.role) == ("api:ann", Role.OPERATE)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_token_is_created_with_the_word_create_in_the_default_file(
    herdbook: Herdbook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    secret = herdbook("token", "create", "ann").out.strip()

    default = tmp_path / "herdbook" / "tokens.toml"
    principal = Tokens(read_tokens(default)).principal(secret)
    assert principal is not None
    assert principal.name == "ann"
    assert "ann" in herdbook("token", "list").out


def test_unusable_home_is_avoided_with_file(
    herdbook: Herdbook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))

    answer = herdbook("token", "ann")

    assert answer.code == 1
    assert "Choose a file with --file" in answer.err


def test_token_reads_by_default_and_answers_in_json(
    herdbook: Herdbook, file: Path
) -> None:
    answer = herdbook("token", "a.b", "--file", str(file), "--json")

    result = answer.json
    assert result == {
        "name": "a.b",
        "role": "read",
        "token": result["token"],
        "file": str(file),
    }
    assert Tokens(read_tokens(file)).principal(result["token"]) is not None


def test_token_keeps_the_rest_of_the_file(herdbook: Herdbook, written: Path) -> None:
    before = written.read_bytes()

    assert herdbook("token", "new", "--file", str(written)).code == 0

    after = written.read_bytes()
    assert after.startswith(before + b"\n\n[tokens.new]\n")
    assert [token.name for token in read_tokens(written)] == ["ann", "b.c", "new"]
    assert stat.S_IMODE(written.stat().st_mode) == 0o640
    assert [path.name for path in written.parent.iterdir()] == [written.name]


@pytest.mark.parametrize("name", ["ann", "b.c"])
def test_token_refuses_a_name_that_is_taken_without_replace(
    herdbook: Herdbook, written: Path, name: str
) -> None:
    before = written.read_bytes()

    refused = herdbook("token", name, "--file", str(written))

    assert refused.code == 2
    assert f"token {name} already exists in {written}" in refused.err
    assert "--replace" in refused.err
    assert written.read_bytes() == before

    options = ("--file", str(written), "--replace", "--role=admin")
    result = herdbook("token", name, *options)

    tokens = read_tokens(written)
    assert {token.name for token in tokens} == {"ann", "b.c"}
    principal = Tokens(tokens).principal(result.out.strip())
    assert principal is not None
    assert (principal.name, principal.role) == (name, Role.ADMIN)
    assert "# Who may ask." in written.read_text()
    assert "# The end, without a newline" in written.read_text()


def test_token_refuses_to_edit_unusual_files(herdbook: Herdbook, file: Path) -> None:
    text = f'[tokens]\nann = {{ role = "read", sha256 = "{"a" * 64}" }}\n'
    file.write_text(text)

    replaced = herdbook("token", "ann", "--file", str(file), "--replace")

    assert replaced.code == 2
    assert "cannot be edited automatically" in replaced.err
    assert file.read_text() == text
    assert herdbook("token", "bob", "--file", str(file)).code == 0


@pytest.mark.parametrize("text", ["= 3", "[other]\n", "[tokens.a]\n", "\udcff"])
def test_token_does_not_add_to_a_file_that_is_not_valid(
    herdbook: Herdbook, file: Path, text: str
) -> None:
    file.write_bytes(text.encode(errors="surrogateescape"))

    answer = herdbook("token", "ann", "--file", str(file))

    assert answer.code == 2
    assert str(file) in answer.err
    assert answer.out == ""
    assert file.read_bytes() == text.encode(errors="surrogateescape")


@pytest.mark.parametrize(
    "name", ["", "a b", "a/b", "a\n", "é", "a" * 65, "hb_" + "a" * 43]
)
def test_token_refuses_an_invalid_name(
    herdbook: Herdbook, file: Path, name: str
) -> None:
    answer = herdbook("token", "--file", str(file), "--", name)

    assert answer.code == 2
    assert "is not a valid token name" in answer.err
    assert not file.exists()


def test_token_reports_a_failed_write(herdbook: Herdbook, tmp_path: Path) -> None:
    missing = herdbook("token", "ann", "--file", str(tmp_path / "no" / "t.toml"))
    folder = herdbook("token", "ann", "--file", str(tmp_path))

    assert (missing.code, folder.code) == (2, 2)
    assert "cannot be written: No such file or directory" in missing.err
    assert "Is a directory" in folder.err
    assert missing.out == folder.out == ""


def test_token_follows_a_link_to_the_file(
    herdbook: Herdbook, tmp_path: Path, written: Path
) -> None:
    link = tmp_path / "link.toml"
    link.symlink_to(written)

    assert herdbook("token", "new", "--file", str(link)).code == 0
    assert link.is_symlink()
    assert "[tokens.new]" in written.read_text()


def test_concurrently_added_tokens_are_all_kept(file: Path) -> None:
    threads = [
        threading.Thread(target=add_token, args=(file, f"n{number}", Role.READ))
        for number in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert {token.name for token in read_tokens(file)} == {f"n{n}" for n in range(12)}


def test_token_names_the_missing_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: Path
) -> None:
    for name in [n for n in sys.modules if n.startswith("herdbook.service")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "herdbook.service", None)

    assert run(["token", "ann", "--file", str(file)]) == 1
    assert "Install it: pip install 'herdbook[service]'" in capsys.readouterr().err


def test_tokens_are_listed_and_revoked(herdbook: Herdbook, tmp_path: Path) -> None:
    file = ("--file", str(tmp_path / "tokens.toml"))
    herdbook("token", "ann", "--role", "admin", *file)
    herdbook("token", "bob", *file)

    listed = herdbook("token", "list", "--json", *file).json
    revoked = herdbook("token", "revoke", "bob", *file)
    left = herdbook("token", "list", *file)

    limits: dict[str, object] = {
        "models": [],
        "max_requests": None,
        "tokens_per_day": None,
    }
    assert listed == [
        {"name": "ann", "role": "admin", "limits": limits},
        {"name": "bob", "role": "read", "limits": limits},
    ]
    assert revoked.out == "bob revoked\n"
    assert "ann" in left.out
    assert "bob" not in left.out


def test_token_has_limits_for_the_gateway(herdbook: Herdbook, file: Path) -> None:
    limits = ("--models", "llama3*", "--models", "qwen3:8b", "--max-requests", "2")
    written = herdbook(
        "token", "ann", *limits, "--tokens-per-day", "1000", "--file", str(file)
    )
    assert written.code == 0, written.err

    (token,) = read_tokens(file)
    listed = herdbook("token", "list", "--file", str(file))

    assert token.limits == TokenLimits(
        models=("llama3*", "qwen3:8b"), max_requests=2, tokens_per_day=1000
    )
    assert "models llama3* qwen3:8b" in listed.out
    assert "2 requests at once" in listed.out
    assert "1,000 tokens a day" in listed.out


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--models", "a b"), "has an invalid model name pattern"),
        (("--max-requests", "0"), "must be at least 1, not 0"),
        (("--tokens-per-day", "many"), "must be a whole number, not 'many'"),
    ],
)
def test_invalid_limits_are_refused(
    herdbook: Herdbook, file: Path, given: tuple[str, ...], message: str
) -> None:
    refused = herdbook("token", "ann", *given, "--file", str(file))

    assert refused.code == 2
    assert message in refused.err
    assert not file.exists()


@pytest.mark.parametrize(
    "line",
    ["max_requests = 0", "max_requests = true", "tokens_per_day = 1.5", "models = 'a'"],
)
def test_file_with_invalid_limits_is_refused(
    herdbook: Herdbook, file: Path, line: str
) -> None:
    file.write_text(f'[tokens.ann]\nrole = "read"\nsha256 = "{"a" * 64}"\n{line}\n')

    assert herdbook("token", "list", "--file", str(file)).code != 0


def test_revoking_an_unknown_token_is_refused(
    herdbook: Herdbook, tmp_path: Path
) -> None:
    file = ("--file", str(tmp_path / "tokens.toml"))
    herdbook("token", "ann", *file)

    assert herdbook("token", "revoke", "eve", *file).code != 0
    assert "Did you mean 'ann'?" in herdbook("token", "revoke", "anm", *file).err
    assert herdbook("token", "revoke", *file).code == 2
    assert herdbook("token", "ann", "bob", *file).code == 2
    assert "Did you mean 'revoke'?" in herdbook("token", "revok", "ann", *file).err
    unclear = herdbook("token", "lst", *file)
    assert (unclear.code, "Did you mean 'list'?" in unclear.err) == (2, True)
    assert "Did you mean 'list'?" in herdbook("token", "ls", *file).err
    assert "lst" not in herdbook("token", "list", *file).out
    assert herdbook("token", "reader", *file).code == 0
    assert herdbook("token", "create", "lst", *file).code == 0
    assert "ann" in herdbook("token", "list", *file).out
