from __future__ import annotations

import pytest
from support.cli_runner import Herdbook, SandboxThread


@pytest.fixture
def lived(herdbook: Herdbook, server: SandboxThread) -> Herdbook:
    """Return the command on a log in which something happened."""
    herdbook("load", "llama3.2:3b")
    herdbook("use", "llama3.2:3b", "--for", "a test")
    herdbook("config", "qwen2.5-coder:7b", "num_ctx=4096", "--note", "long files")
    herdbook("unload", "llama3.2:3b")
    return herdbook


def test_history_of_a_model_is_newest_first(lived: Herdbook) -> None:
    lines = lived("history", "llama3.2:3b").out.splitlines()

    assert lines[0].split()[2:4] == ["unloaded:", "on"]
    assert lines[0].endswith("by cli:ann")
    assert "used: a test" in lines[1]
    assert "found: 2.0 GB" in lines[-1]
    assert lines[-1].endswith("observed")


def test_history_of_all_models_names_the_model(lived: Herdbook) -> None:
    answer = lived("history", "--limit", "2")

    assert len(answer.out.splitlines()) == 2
    assert "llama3.2:3b        unloaded" in answer.out
    assert 'qwen2.5-coder:7b   num_ctx set to 4096 (was: not set): "lo' in answer.out


@pytest.mark.parametrize(
    ("options", "types"),
    [
        (["--type", "ModelUsed"], ["ModelUsed"]),
        (["--cause", "configuration"], ["ConfigurationChanged"]),
        (["--actor", "cli:", "--limit", "1"], ["ModelUnloaded"]),
        (["--actor", "api:"], []),
        (["--until", "yesterday 00:00"], []),
        (["--since", "1 hour ago", "--type", "NodeReached"], ["NodeReached"]),
        (["--since", "#1", "--until", "1"], ["NodeReached"]),
        (["--since", "#9999"], []),
    ],
)
def test_history_is_filtered(
    lived: Herdbook, options: list[str], types: list[str]
) -> None:
    entries = lived("history", "--json", *options).json

    assert [entry["type"] for entry in entries] == types


def test_empty_history_says_so(lived: Herdbook) -> None:
    assert lived("history", "--actor", "api:").out == "No events.\n"


def test_log_prints_the_newest_events_in_order(lived: Herdbook) -> None:
    lines = lived("log", "--limit", "2").out.splitlines()

    assert [line.split()[2] for line in lines] == [
        "ConfigurationChanged",
        "ModelUnloaded",
    ]
    assert 'v6 {"reason":"requested","evicted_by":null} command cli:ann' in lines[1]


def test_log_selects_events_as_history_does(lived: Herdbook) -> None:
    used = lived("log", "--type", "modelused").out.splitlines()
    assert len(used) == 1
    assert " ModelUsed model/local/llama3.2:3b " in used[0]

    newest = lived("log", "llama3.2:3b", "--actor", "cli:", "--limit", "2").out
    types = [line.split()[2] for line in newest.splitlines()]
    assert types == ["ModelUsed", "ModelUnloaded"]

    first = lived("log", "--after", "0", "--cause", "configuration", "--limit", "1")
    assert first.out.split()[2] == "ConfigurationChanged"
    assert lived("log", "--since", "today", "--type", "ModelDeleted").out == ""

    wrong = lived("log", "--type", "ModelUse")
    assert (wrong.code, "ModelUsed" in wrong.err) == (2, True)
    assert lived("log", "nosuch").code == 3


def test_log_in_json_is_an_array_of_envelopes(lived: Herdbook) -> None:
    events = lived("log", "--after", "0", "--limit", "3", "--json").json

    assert [event["position"] for event in events] == [1, 2, 3]
    assert {*events[0]["data"]} == {"version", "url"}
    assert {*events[0]} == {
        "position",
        "stream",
        "version",
        "event_id",
        "type",
        "schema",
        "data",
        "occurred_at",
        "recorded_at",
        "actor",
        "cause",
        "correlation_id",
        "causation_id",
        "hash",
    }


def test_log_after_the_end_is_empty(lived: Herdbook) -> None:
    assert lived("log", "--after", "9999").out == ""
    assert lived("log", "--after", "9999", "--json").json == []


def test_as_of_shows_the_models_as_they_were(lived: Herdbook) -> None:
    used = lived("history", "--type", "ModelUsed", "--json").json[0]["position"]

    then = lived("as-of", f"#{used}")

    assert then.out.startswith("As of ")
    assert f"(#{used}):" in then.out.splitlines()[0]
    assert "llama3.2:3b               loaded" in then.out
    assert "general     llama3.2:3b               used " in then.out


def test_as_of_for_a_role_shows_the_past_ranking(lived: Herdbook) -> None:
    answer = lived("as-of", "now", "--role", "coding")

    assert answer.out.splitlines()[1].startswith("use   qwen2.5-coder:7b")


def test_as_of_before_the_first_event_is_empty(lived: Herdbook) -> None:
    assert "no server has answered yet · 0 models" in lived("as-of", "2 h ago").out
    assert lived("as-of", "0").out.startswith("Before the first event:")


def test_as_of_in_json_marks_the_position(lived: Herdbook) -> None:
    result = lived("as-of", "3", "--json").json

    assert {*result} == {"position", "asked", "node", "models", "recommended"}
    assert (result["position"], result["asked"]) == (3, None)
    assert [model["name"] for model in result["models"]] == ["gemma3:4b"]
    assert result["recommended"]["vision"]["name"] == "gemma3:4b"


def test_as_of_in_json_for_a_role_has_that_role(lived: Herdbook) -> None:
    result = lived("as-of", "now", "--role", "coding", "--json").json

    assert [*result["recommended"]] == ["coding"]
    assert result["asked"].endswith("Z")
