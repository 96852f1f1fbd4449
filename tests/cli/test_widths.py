"""Every verb keeps its content at every width of the terminal."""

from __future__ import annotations

import re

import pytest
from support.cli_runner import Herdbook, SandboxThread

VERBS = [
    ["ls"],
    ["ps"],
    ["show", "llama3.2:3b"],
    ["recommend"],
    ["recommend", "coding"],
    ["suggest", "coding"],
    ["usage"],
    ["usage", "--by", "client", "--by", "outcome"],
    ["node"],
    ["config", "llama3.2:3b"],
    ["history"],
    ["as-of", "now"],
    ["diff", "#0", "now"],
    ["why", "llama3.2:3b"],
    ["verify"],
    ["doctor"],
]


def words(text: str) -> set[str]:
    """Return the words of an answer that do not depend on the time."""
    found = re.findall(r"(?<!\S)[a-z][a-z.:-]{2,}(?!\S)", text.lower())
    return set(found) - {"ago", "just", "min", "now"}


@pytest.mark.parametrize("columns", [40, 80, 100, 200])
@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_terminal_of_any_width_shows_every_word(
    herdbook: Herdbook,
    server: SandboxThread,
    monkeypatch: pytest.MonkeyPatch,
    verb: list[str],
    columns: int,
) -> None:
    herdbook("config", "llama3.2:3b", "num_ctx=4096", "--note", "long files")
    herdbook("load", "llama3.2:3b")
    herdbook("use", "llama3.2:3b", "--for", "a test of the width")
    piped = herdbook(*verb).out
    monkeypatch.setenv("COLUMNS", str(columns))
    assert words(herdbook(*verb).out) == words(piped)
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr("_pytest.capture.CaptureIO.isatty", lambda _: True)

    shown = herdbook(*verb).out

    assert words(piped) <= words(shown)
    for line in shown.splitlines():
        assert len(line) <= columns or max(map(len, line.split())) > columns // 2
