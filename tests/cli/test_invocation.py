from __future__ import annotations

import os
import pwd
import sys
from pathlib import Path

import pytest
from support.cli_runner import Herdbook, SandboxThread

from herdbook.cli import run
from herdbook.cli.errors import NoHomeError
from herdbook.cli.invocation import Invocation, actor


def test_global_options_are_accepted_before_the_verb(
    herdbook: Herdbook, server: SandboxThread, tmp_path: Path
) -> None:
    path = tmp_path / "other.db"

    answer = herdbook("--db", str(path), "--node", "cellar", "--json", "ls")

    assert path.exists()
    assert answer.json[0]["node"] == "cellar"


def test_a_global_option_after_the_verb_wins(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    answer = herdbook("--node", "cellar", "ls", "--node", "attic", "--json")

    assert answer.json[0]["node"] == "attic"


def test_the_environment_names_the_node(
    herdbook: Herdbook, server: SandboxThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HERDBOOK_NODE", "cellar")

    assert herdbook("ls").out.splitlines()[-1].startswith("cellar · Ollama")


def test_log_is_in_the_user_data_directory_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))

    log = Invocation().log

    assert isinstance(log, Path)
    assert log.name == "herd.db"
    assert tmp_path in log.parents
    assert log.parent.is_dir()


def test_unusable_home_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "file" / "home"))

    assert Invocation().catalogue is None
    with pytest.raises(NoHomeError, match="--db PATH or HERDBOOK_DB") as error:
        _ = Invocation().log
    assert error.value.subject.endswith("file/home/herdbook")


def test_user_without_a_name_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    users = {entry.pw_uid for entry in pwd.getpwall()}
    nobody = next(number for number in range(9999) if number not in users)
    monkeypatch.setattr(os, "getuid", lambda: nobody)

    assert actor() == "cli:unknown"


def test_a_stop_outside_any_verb_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("herdbook.cli.main.main", stop)

    assert run([]) == 1
    assert capsys.readouterr().err == "herdbook: stopped   (exit 1)\n"


def test_unexpected_error_is_one_line(
    herdbook: Herdbook, server: SandboxThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("odd")

    monkeypatch.setattr("herdbook.cli.render.models_table.footers", fail)

    answer = herdbook("ls")

    assert answer.code == 1
    assert answer.err.startswith("herdbook: unexpected error: RuntimeError: odd. This")


def test_warnings_are_plain_lines(herdbook: Herdbook, server: SandboxThread) -> None:
    server.apply(answer={"path": "/api/show", "status": 200, "body": "[]", "times": 0})

    answer = herdbook("ls")

    assert answer.err.startswith("herdbook: warning: the details of ")
    assert answer.code == 0


def test_command_without_its_extra_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith("herdbook.cli.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "typer", None)

    assert run(["ls"]) == 1
    assert capsys.readouterr().err == (
        "herdbook: the command line is not installed (typer is missing). "
        "Install it: pip install 'herdbook[cli]'   (exit 1)\n"
    )
