from __future__ import annotations

import re

import pytest
from support.cli_runner import Herdbook, SandboxThread

from herdbook.presentation.wording import NOTHING


@pytest.fixture
def lived(herdbook: Herdbook, server: SandboxThread) -> Herdbook:
    """Return the command on a log in which something happened behind #11."""
    herdbook("ls")
    herdbook("config", "qwen2.5-coder:7b", "num_ctx=4096", "--note", "long files")
    herdbook("load", "llama3.2:3b")
    herdbook("rm", "smollm2:135m")
    return herdbook


def diff_rows(herdbook: Herdbook, *words: str) -> list[str]:
    """Return the lines of a difference, each with single blanks."""
    return [
        " ".join(line.split()) for line in herdbook("diff", *words).out.splitlines()
    ]


def test_diff_shows_what_changed_since_a_position(lived: Herdbook) -> None:
    lines = diff_rows(lived, "11")

    assert lines[0].startswith("From #11 to #")
    assert "llama3.2:3b state available loaded" in lines
    assert f"llama3.2:3b memory {NOTHING} 2.3 GB" in lines
    assert f"qwen2.5-coder:7b setting num_ctx {NOTHING} 4096" in lines
    assert f"smollm2:135m deleted 271 MB, a2cb21fb5a4c {NOTHING}" in lines


def test_diff_shows_models_that_appeared_and_roles(lived: Herdbook) -> None:
    lines = diff_rows(lived, "0", "11")

    assert f"gemma3:4b added {NOTHING} 3.3 GB, 18de26b4225a" in lines
    assert f"role coding first choice {NOTHING} qwen2.5-coder:7b" in lines
    assert f"server version {NOTHING} 0.32.15" in lines


def test_diff_shows_times_and_the_server(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    herdbook("ls")
    server.apply(server="killed")
    herdbook("ls")
    lines = diff_rows(herdbook, "11", "now")

    assert lines[0].startswith("From #11 to ")
    assert lines[0].endswith(" (#12):")
    assert "server reached yes no" in lines


def test_diff_shortens_digests(herdbook: Herdbook, server: SandboxThread) -> None:
    herdbook("ls")
    (weights,) = {each for each in diff_rows(herdbook, "2", "3") if " weights " in each}

    assert len(weights.split()[-1]) == 12


def test_diff_of_a_time_with_itself_is_nothing(lived: Herdbook) -> None:
    assert lived("diff", "5", "5").out == "From #5 to #5:\nNo changes.\n"


def test_diff_answers_in_its_documented_shape(lived: Herdbook) -> None:
    found = lived("diff", "11", "--no-refresh", "--json").json

    assert [*found] == ["since", "until", "node", "models", "roles"]
    assert [*found["models"][0]] == ["name", "presence", "changes"]
    assert [*found["models"][0]["changes"][0]] == ["fact", "was", "now"]
    assert found["since"] == 11


def test_diff_after_the_end_is_not_found(lived: Herdbook) -> None:
    assert lived("diff", "1", "4000").code == 3


def test_diff_of_an_invalid_time_is_a_usage_error(herdbook: Herdbook) -> None:
    assert herdbook("diff", "some day").code == 2


def test_why_explains_a_state_oldest_first(lived: Herdbook) -> None:
    lines = lived("why", "llama3.2:3b").out.splitlines()

    assert lines[0].startswith("llama3.2:3b is loaded (since ")
    assert "origin   found: 2.0 GB" in lines[1]
    assert "step     load started" in lines[-2]
    assert "cause    loaded in" in lines[-1]
    assert lines[-1].endswith("by cli:ann")


def test_why_names_other_models_that_are_the_cause(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    server.apply(answer=None)
    herdbook("pull", "llama3.2:latest")
    herdbook("load", "llama3.2:3b")
    out = herdbook("why", "llama3.2:latest").out

    assert re.search(r"other model +llama3\.2:3b +loaded", out)


def test_why_of_an_unknown_model_is_not_found(lived: Herdbook) -> None:
    assert lived("why", "mistral").code == 3


def test_why_answers_in_its_documented_shape(lived: Herdbook) -> None:
    found = lived("why", "llama3.2:3b", "--no-refresh", "--json").json

    assert [*found] == ["model", "ancestors"]
    assert found["model"]["state"] == "loaded"
    links = {"state", "arrival", "memory", "operation", "setting", "other", "node"}
    assert all(each["link"] in links for each in found["ancestors"])
    assert found["ancestors"][-1]["entry"]["type"] == "ModelLoaded"
