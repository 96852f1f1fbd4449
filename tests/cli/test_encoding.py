"""Output in encodings that lack characters is complete and never an error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.cli_runner import Herdbook, SandboxThread

C_LOCALE = {"PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
NOTE = "bell\a and \u200f right to left \u2013 \U0001f411"


def run(
    address: str, *words: str, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "herdbook.cli", *words],
        env={**os.environ, "OLLAMA_HOST": address, **environment},
        capture_output=True,
        check=False,
    )


@pytest.mark.parametrize(
    "environment",
    [C_LOCALE, {"PYTHONIOENCODING": "cp1252"}],
    ids=["C", "cp1252"],
)
@pytest.mark.parametrize(
    "words",
    [
        ["ls"],
        ["show", "llama3.2:3b"],
        ["history", "llama3.2:3b"],
        ["verify"],
        ["as-of", "now"],
        ["why", "llama3.2:3b"],
    ],
    ids=" ".join,
)
def test_every_verb_answers_completely(
    herdbook: Herdbook,
    server: SandboxThread,
    log: Path,
    words: list[str],
    environment: dict[str, str],
) -> None:
    herdbook("use", "llama3.2:3b", "--for", NOTE)
    expected = herdbook(*words)

    done = run(server.address, *words, **environment)

    assert (done.returncode, done.stderr) == (expected.code, b"")
    assert done.stdout.count(b"\n") == expected.out.count("\n")


def test_ascii_output_uses_ascii_forms(server: SandboxThread, log: Path) -> None:
    done = run(server.address, "ls", **C_LOCALE)

    assert done.stdout.isascii()
    assert b"local | Ollama" in done.stdout
    assert b" -\n" in done.stdout


def test_json_is_the_same_in_every_encoding(
    herdbook: Herdbook, server: SandboxThread, log: Path
) -> None:
    herdbook("use", "llama3.2:3b", "--for", NOTE)
    words = ("history", "--json", "--limit", "1")

    done = run(server.address, *words, **C_LOCALE)

    assert done.stdout.isascii()
    assert json.loads(done.stdout) == herdbook(*words).json
