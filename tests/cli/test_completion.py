from __future__ import annotations

from pathlib import Path

import pytest
from support.cli_runner import Herdbook, SandboxThread

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
def test_roles_complete(begun: str, whole: list[str]) -> None:
    assert complete_role(begun) == whole


def test_event_types_complete() -> None:
    assert complete_type("NodeL") == ["NodeLost"]
