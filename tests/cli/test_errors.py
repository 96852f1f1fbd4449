from __future__ import annotations

import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.cli_runner import Herdbook, SandboxThread

import herdbook.core
from herdbook.cli import errors
from herdbook.cli.argument_errors import OTHER_WORDS
from herdbook.cli.commands import VERBS
from herdbook.cli.logging import SENTENCES
from herdbook.core import (
    BusyError,
    HerdbookError,
    InvalidNameError,
    ModelNotFoundError,
    NodeUnreachableError,
    PullRefusedError,
    StoreError,
)
from herdbook.core.errors import PullRefusal


def classes(root: type[HerdbookError]) -> Iterator[type[HerdbookError]]:
    yield root
    for child in root.__subclasses__():
        yield from classes(child)


@pytest.mark.parametrize("kind", sorted(set(classes(HerdbookError)), key=str))
def test_every_error_has_an_exit_code(kind: type[HerdbookError]) -> None:
    error = kind.__new__(kind)
    if isinstance(error, PullRefusedError):
        error = PullRefusedError("m:1", refusal=PullRefusal.OTHER)

    assert 1 <= errors.exit_code(error) <= 5


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StoreError("x", "is bad"), 1),
        (InvalidNameError("..", reason="no"), 2),
        (ModelNotFoundError("x"), 3),
        (BusyError("x", "is busy"), 4),
        (NodeUnreachableError("x"), 5),
    ],
)
def test_exit_codes_are_those_of_the_table(error: HerdbookError, code: int) -> None:
    assert errors.exit_code(error) == code


def test_sentence_has_subject_state_and_remedy_in_one_line() -> None:
    result = errors.shape(ModelNotFoundError("mistral:9b", where="node 'local'"))

    assert errors.sentence(result) == (
        "herdbook: mistral:9b is not on node 'local'. Pull it first   (exit 3)"
    )


def test_unexpected_errors_hint_at_verbose() -> None:
    result = errors.unexpected(RuntimeError("odd\nthing"))

    assert errors.sentence(result) == (
        "herdbook: unexpected error: RuntimeError: odd thing. This is a bug in "
        "Herdbook. Add --verbose for the traceback   (exit 1)"
    )


def test_verbose_shows_causes_and_the_traceback() -> None:
    error, stream = RuntimeError("odd"), io.StringIO()
    error.__cause__ = KeyError("deep")

    code = errors.report(
        errors.unexpected(error), error, stream, as_json=False, verbose=True
    )

    assert code == 1
    assert "  because: KeyError: 'deep'" in stream.getvalue()
    assert "RuntimeError: odd" in stream.getvalue()


@pytest.mark.parametrize(
    ("words", "code", "result"),
    [
        (["foo"], 2, "No such command 'foo'. Try: herdbook --help"),
        (["ls", "--foo"], 2, "No such option '--foo'"),
        (["show"], 2, "Missing argument 'MODEL'. Try: herdbook show --help"),
        (["show", "../x"], 2, "is not a valid model name"),
        (["show", "nope"], 3, "nope:latest was not found on node 'local'."),
        (["graph", "nope"], 3, "nope:latest was not found on node 'local'."),
        (["history", "nope"], 3, "nope:latest was not found on node 'local'."),
        (["load", "nope"], 3, "nope:latest is not on node 'local'."),
        (["unload", "nope"], 3, "is not on node 'local'."),
        (["rm", "nope"], 3, "is not on node 'local'."),
        (["use", "nope"], 3, "is not on node 'local'."),
        (["load", "llama3.2:3b", "--num-ctx", "1"], 2, "num_ctx must be"),
        (
            ["load", "llama3.2:3b", "--num-ctx", "many"],
            2,
            "num_ctx must be a whole number of at least 4",
        ),
        (["load", "llama3.2:3b", "--keep-alive", "abc"], 2, "keep_alive"),
        (["config", "x", "foo=1"], 2, "foo"),
        (["config", "x", "temperature=9"], 2, "temperature"),
        (["config", "x", "temperature"], 2, "temperature"),
        (
            ["recommend", "cooking"],
            2,
            "not a role. Did you mean 'coding'?",
        ),
        (["suggest", "coding", "--memory", "much"], 2, "'much' is not a size"),
        (["history", "--limit", "0"], 2, "--limit must be at least 1, not 0."),
        (["serve", "--port", "99999"], 2, "--port must be from 0 to 65535, not 99999."),
        (["serve", "--gateway-roles"], 2, "need a gateway. Add --gateway HOST:PORT"),
        (["ls", "--stat", "x"], 2, "'--stat'. Did you mean '--state'? Try"),
        (["ls", "--no-refrsh"], 2, "'--no-refrsh'. Did you mean '--no-refresh'? Try"),
        (["ls", "a", "b"], 2, "Unexpected argument 'b'. Try: herdbook ls --help"),
        (
            ["list"],
            2,
            "No such command 'list'. Did you mean 'ls'? Try: herdbook --help",
        ),
        (["delete", "a:1b"], 2, "Did you mean 'rm'?"),
        (["set", "a:1b"], 2, "'set'. Did you mean 'config'? Try"),
        (["node", "rm", "gpu1"], 2, "No such command 'rm'. Did you mean 'remove'?"),
        (["ls", "--capability", "tools"], 2, "Did you mean '--can'? Try: herdbook ls"),
        (["node", "mov"], 2, "No such command 'mov'. Did you mean 'move' or 'remove'?"),
        (["key", "nwe", "f", "--name", "x"], 2, "Unknown argument 'nwe'. Did you mean"),
        (["history", "--type", "Birth"], 2, "'Birth' is not an event type"),
        (["history", "--cause", "fun"], 2, "configuration, not 'fun'. Try: "),
        (["history", "--cause", "expir"], 2, "Did you mean 'expiry'? Try: "),
        (["history", "--since", "soon"], 2, "'soon' cannot be read as a time"),
        (["as-of", "tomorrow"], 2, "'tomorrow' cannot be read as a time. Try: "),
        (["as-of", "#999"], 3, "#999 does not exist yet; the last event is #"),
        (["ls", "--node", "a/b"], 2, "'a/b'"),
        (["refresh", "--ollama", "127.0.0.1:9"], 5, "cannot be reached"),
        (["load", "x", "--ollama", "127.0.0.1:9"], 5, "cannot be reached"),
        (["ls", "--ollama", "ftp://x"], 2, "is not a valid server address"),
        (["pull", "no-such:1b"], 3, "the registry does not have it"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_errors_are_one_line_on_stderr(
    herdbook: Herdbook, server: SandboxThread, words: list[str], code: int, result: str
) -> None:
    answer = herdbook(*words)

    assert answer.code == code
    assert result in answer.err
    assert answer.err.startswith("herdbook: ")
    assert answer.err.endswith(f"   (exit {code})\n")
    assert answer.err.count("\n") == 1


def test_errors_in_json_have_the_parts(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    answer = herdbook("load", "nope", "--json")

    assert answer.out == ""
    assert json.loads(answer.err) == {
        "code": "model_not_found",
        "subject": "nope:latest",
        "state": "is not on node 'local'",
        "remedy": "Pull it first",
        "exit": 3,
    }


def test_verbose_shows_the_last_event(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    assert "  last event: #11\n" in herdbook("load", "nope", "--verbose").err
    assert "  last event: #11\n" in herdbook("ls", "--verbose").err


def test_a_busy_model_is_exit_4(
    herdbook: Herdbook, server: SandboxThread, log: Path
) -> None:
    server.apply(registry={"rate": 1e4})
    with subprocess.Popen(
        [sys.executable, "-m", "herdbook.cli", "pull", "gemma3:27b", "--json"],
        env={**os.environ, "OLLAMA_HOST": server.address, "HERDBOOK_DB": str(log)},
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()

        answer = herdbook("load", "gemma3:27b")

        other.send_signal(signal.SIGINT)
        other.communicate(timeout=20)
    assert answer.code == 4
    assert "has a running pull, started by cli:ann" in answer.err


def test_a_directory_is_not_a_log(herdbook: Herdbook, tmp_path: Path) -> None:
    answer = herdbook("ls", "--db", str(tmp_path))

    assert answer.code == 1
    assert "is a directory. Use the path of a file" in answer.err


def test_log_requires_an_existing_directory(herdbook: Herdbook, tmp_path: Path) -> None:
    answer = herdbook("ls", "--db", str(tmp_path / "no" / "herd.db"))

    assert answer.code == 1
    assert "is in a directory that does not exist" in answer.err


@pytest.mark.parametrize("verb", ["ls", "verify"])
def test_database_of_another_program_is_not_changed(
    herdbook: Herdbook, tmp_path: Path, verb: str
) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (a)")

    answer = herdbook(verb, "--db", str(path))

    assert answer.code == 1
    assert "is not a Herdbook log" in answer.err


@pytest.mark.parametrize("arguments", ["ls", "--version", "ls --help"])
def test_failed_write_of_the_output_is_reported(
    arguments: str, server: SandboxThread, log: Path
) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "herdbook.cli", *arguments.split()],
            env={**os.environ, "OLLAMA_HOST": server.address},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    assert done.returncode == 1
    assert done.stderr.startswith("herdbook: the output cannot be written: No space")


def test_closed_pipe_is_not_a_failure(server: SandboxThread, log: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m herdbook.cli ls | true; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        env={**os.environ, "OLLAMA_HOST": server.address},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_ends_log_follow(server: SandboxThread, log: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "herdbook.cli", "log", "--follow", "--json"],
        env={**os.environ, "OLLAMA_HOST": server.address},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)

    assert first["position"] == 1
    assert (process.returncode, err) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_is_reported_in_one_line(
    server: SandboxThread, log: Path, herdbook: Herdbook, number: signal.Signals
) -> None:
    server.apply(runner_start_delay_s=100_000.0)
    with subprocess.Popen(
        [sys.executable, "-m", "herdbook.cli", "load", "llama3.2:3b"],
        env={**os.environ, "OLLAMA_HOST": server.address},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not any(seen.path == "/api/generate" for seen in server.world.seen):
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.02)
        process.send_signal(number)
        _, err = process.communicate(timeout=20)

    assert process.returncode == 1
    assert err.startswith("herdbook: load was stopped.")
    assert err.count("\n") == 1
    assert "load cancelled" in herdbook("history", "llama3.2:3b").out


def test_every_sentence_is_for_a_warning_of_the_core() -> None:
    core = Path(herdbook.core.__file__).parent
    source = "".join(file.read_text() for file in core.rglob("*.py"))

    assert all(f'"{warning}"' in source for warning in SENTENCES)


def test_words_of_other_programs_lead_to_commands_that_exist() -> None:
    words = OTHER_WORDS["herdbook"]

    assert not words.keys() & set(VERBS)
    assert {one for one in words.values() if not one.startswith("-")} <= set(VERBS)
