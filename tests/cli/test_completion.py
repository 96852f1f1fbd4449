from __future__ import annotations

from pathlib import Path

import pytest
from support.cli_runner import Herdbook, SandboxThread

from herdbook.cli import run
from herdbook.cli.completion import complete_model, complete_role, complete_type


def test_models_complete_from_the_log(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    herdbook("ls")

    assert complete_model("llama") == ["llama3.2:3b"]
    assert len(complete_model("")) == 5


def test_models_do_not_complete_without_a_log(log: Path) -> None:
    assert complete_model("") == []
    assert not log.exists()


def test_models_complete_to_nothing_if_the_log_is_invalid(log: Path) -> None:
    log.write_bytes(b"no database" * 100)

    assert complete_model("") == []


@pytest.mark.parametrize(
    ("begun", "whole"), [("co", ["coding"]), ("t", ["tool_use", "thinking"])]
)
def test_roles_are_completed(begun: str, whole: list[str]) -> None:
    assert complete_role(begun) == whole


def test_event_types_are_completed() -> None:
    assert complete_type("NodeL") == ["NodeLost"]


@pytest.mark.parametrize(
    ("words", "whole"),
    [
        ("herdbook rm gemma", "gemma3:4b"),
        ("herdbook rm gemma3 :", "4b"),
        ("herdbook rm gemma3 : 4", "4b"),
        ("herdbook rm gemma3:4", "gemma3:4b"),
        ("herdbook rm gemma3 : 4b llama3.2 :", "3b"),
        ("herdbook --ollama http ://a : 80 rm gemma3 : 4", "4b"),
    ],
)
def test_names_complete_although_bash_splits_them_at_colons(
    words: str,
    whole: str,
    herdbook: Herdbook,
    server: SandboxThread,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    herdbook("ls")
    capsys.readouterr()
    monkeypatch.setenv("_HERDBOOK_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words.replace(" ", "\n"))
    monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
    with pytest.raises(SystemExit):
        run([])

    assert capsys.readouterr().out.split() == [whole]
