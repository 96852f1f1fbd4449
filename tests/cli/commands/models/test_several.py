"""Verbs that take several models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.cli_runner import Herdbook, SandboxThread


def test_rm_deletes_several_models_and_reports_each(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    answer = herdbook("rm", "smollm2:135m", "llama3.2:3b")

    assert answer.code == 0
    assert [line.split()[0] for line in answer.out.splitlines()] == [
        "smollm2:135m",
        "llama3.2:3b",
    ]


@pytest.mark.parametrize("verb", ["rm", "load", "unload", "pull"])
def test_invalid_name_stops_before_anything_is_done(
    herdbook: Herdbook, server: SandboxThread, verb: str
) -> None:
    answer = herdbook(verb, "smollm2:135m", "../x")

    assert (answer.code, answer.out) == (2, "")
    shown = herdbook("show", "smollm2:135m", "--json").json
    assert (shown["present"], shown["state"]) == (True, "available")


def test_a_failure_does_not_stop_the_others_and_the_worst_code_counts(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    answer = herdbook("rm", "nope:1b", "smollm2:135m")

    assert answer.code == 3
    assert answer.err.startswith("herdbook: nope:1b is not on node 'local'")
    assert answer.out == "smollm2:135m deleted; this frees 271 MB\n"


def test_several_models_in_json_are_one_object_per_line(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    answer = herdbook("unload", "nope:1b", "smollm2:135m", "--json")

    failed, done = [json.loads(line) for line in answer.out.splitlines()]
    assert (answer.code, answer.err) == (3, "")
    assert (failed["name"], failed["error"]["code"]) == ("nope:1b", "model_not_found")
    assert done == {"name": "smollm2:135m", "result": "not_loaded"}


def test_load_and_pull_accept_several_models(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    loaded = herdbook("load", "smollm2:135m", "llama3.2:3b", "--json")
    pulled = herdbook("pull", "qwen3:0.6b", "no-such:1b")

    assert [each["state"] for each in loaded.json_lines] == ["loaded", "loaded"]
    assert pulled.code == 3
    assert "qwen3:0.6b pulled in" in pulled.out
    assert pulled.err.count("\n") == 1


def test_repeated_model_is_processed_once(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    answer = herdbook("rm", "smollm2:135m", "SmolLM2:135m")

    assert answer.code == 0
    assert answer.out.count("deleted") == 1


def test_config_of_a_loaded_model_says_when_it_takes_effect(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    before = herdbook("config", "llama3.2:3b", "num_ctx=4096").out
    herdbook("load", "llama3.2:3b")
    after = herdbook("config", "llama3.2:3b", "num_ctx=8192").out

    assert "takes effect" not in before
    assert after.splitlines()[-1] == (
        "llama3.2:3b is loaded: the change takes effect at the next load. "
        "To reload it now: herdbook load llama3.2:3b"
    )
    assert "takes effect" not in herdbook("config", "llama3.2:3b").out


def test_config_of_an_unknown_model_fails(
    herdbook: Herdbook, server: SandboxThread, log: Path
) -> None:
    herdbook("ls")

    answer = herdbook("config", "llama3.2", "num_ctx=4096")

    assert answer.code == 3
    assert (
        "llama3.2:latest was not found on node 'local'. Did you mean llama3.2:3b?"
        in (answer.err)
    )
    assert herdbook("history", "--type", "ConfigurationChanged", "--json").json == []


@pytest.mark.parametrize("verb", ["show", "load", "unload", "rm", "use", "why"])
def test_an_unknown_model_suggests_near_names(
    herdbook: Herdbook, server: SandboxThread, verb: str
) -> None:
    answer = herdbook(verb, "llama3.2")

    assert answer.code == 3
    assert "Did you mean llama3.2:3b?" in answer.err


@pytest.mark.parametrize(
    ("words", "nearest"),
    [
        (["lss"], "'ls'"),
        (["history", "--type", "ModelLoad"], "'ModelLoaded'"),
        (["recommend", "codign"], "'coding'"),
        (["config", "llama3.2:3b", "num_ct=1"], "'num_ctx'"),
        (["ls", "--sort", "siez"], "'size'"),
        (["ls", "--state", "lodaed"], "'loaded'"),
        (["ls", "--can", "tool"], "'tools'"),
    ],
)
def test_an_unknown_name_suggests_the_nearest(
    herdbook: Herdbook, server: SandboxThread, words: list[str], nearest: str
) -> None:
    answer = herdbook(*words)

    assert answer.code == 2
    assert f"Did you mean {nearest}?" in answer.err
