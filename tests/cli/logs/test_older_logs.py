"""Logs, snapshots and files written before the layout changed read as before.

``tests/fixtures/before-layout`` holds a log of the version before, the desired set and
the token file that it wrote, and what it answered in JSON.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.cli_runner import Herdbook

from herdbook.core.desired.desired import read
from herdbook.service.auth.tokens import Role, read_tokens

BEFORE = Path(__file__).parents[2] / "fixtures" / "before-layout"

WORDING = {"message", "note", "reasons", "remedy", "seconds", "sentence"}
"""Fields that hold text for people, or the time that an answer took."""

READERS = {
    "ls": ["ls", "--no-refresh", "--all"],
    "as-of": ["as-of", "#20"],
    "diff": ["diff", "#10", "#35"],
    "log": ["log", "--limit", "100"],
    "verify": ["verify"],
}


def missing(before: object, now: object, at: str = "") -> list[str]:
    """Return where ``now`` lacks what was there before; it may have more fields."""
    if isinstance(before, dict):
        if not isinstance(now, dict):
            return [at]
        return [
            found
            for key, value in before.items()
            if key not in WORDING
            for found in missing(value, now.get(key, KeyError), f"{at}.{key}")
        ]
    if isinstance(before, list):
        if not isinstance(now, list) or len(before) != len(now):
            return [at]
        return [
            found
            for index, (old, new) in enumerate(zip(before, now, strict=True))
            for found in missing(old, new, f"{at}[{index}]")
        ]
    return [] if before == now else [f"{at}: {before!r} is now {now!r}"]


@pytest.fixture
def old_log(log: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:21987")
    log.write_bytes((BEFORE / "log.db").read_bytes())
    return log


@pytest.mark.usefixtures("old_log")
@pytest.mark.parametrize("name", READERS)
def test_log_of_the_previous_version_gives_the_same_answers(
    herdbook: Herdbook, name: str
) -> None:
    answer = herdbook(*READERS[name], "--json")

    assert answer.code == 0
    before = json.loads((BEFORE / f"{name}.json").read_text())
    assert missing(before, answer.json) == []


def test_desired_set_of_the_previous_version_is_read() -> None:
    desired = read(BEFORE / "desired.toml")

    assert [model.name for model in desired.models] == [
        "codellama:7b",
        "llama3.2:1b",
        "llava:7b",
        "nomic-embed-text:latest",
        "plain:latest",
        "update-me:latest",
        "update-me:v2",
    ]


def test_token_file_of_the_previous_version_is_read() -> None:
    (token,) = read_tokens(BEFORE / "tokens.toml")

    assert (token.name, token.role) == ("reader", Role.READ)
