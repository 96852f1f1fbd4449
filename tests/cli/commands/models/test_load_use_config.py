from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from support.cli_runner import Herdbook, SandboxThread


def test_load_prints_the_loaded_model(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    answer = herdbook("load", "llama3.2:3b", "--num-ctx", "2048", "--keep-alive", "10m")

    assert answer.code == 0
    assert answer.out.splitlines()[-1].startswith("llama3.2:3b loaded in ")
    assert "2k context" in answer.out
    assert "GPU" in answer.out


def test_load_in_json_is_the_model(herdbook: Herdbook, server: SandboxThread) -> None:
    result = herdbook("load", "llama3.2:3b", "--json").json

    assert result["state"] == "loaded"
    assert result["runner"]["name"] == "llama3.2:3b"


def test_load_keeps_the_model_without_expiry_if_requested(
    herdbook: Herdbook, serving: Callable[..., SandboxThread]
) -> None:
    server = serving(speed=1.0)  # a faster one gets sooner to the end of ever

    answer = herdbook(
        "load", "smollm2:135m", "--keep-alive", "-1", "--ollama", server.address
    )

    assert "no expiry" in answer.out


def test_failed_load_is_explained_and_recorded(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    server.apply(runner_dies_saying="CUDA error: out of memory")

    answer = herdbook("load", "llama3.2:3b")

    assert answer.code == 1
    assert answer.err.startswith("herdbook: llama3.2:3b cannot be loaded")
    assert "load failed" in herdbook("history", "llama3.2:3b").out


def test_unload_reports_its_result(herdbook: Herdbook, server: SandboxThread) -> None:
    herdbook("load", "llama3.2:3b")

    assert herdbook("unload", "llama3.2:3b").out == "llama3.2:3b unloaded\n"
    assert herdbook("unload", "llama3.2:3b").out == "llama3.2:3b was not loaded\n"


def test_unload_names_the_models_that_share_the_weights(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    herdbook("pull", "llama3.2:latest")
    herdbook("load", "llama3.2:3b")

    answer = herdbook("unload", "llama3.2:3b")

    assert answer.out == ("llama3.2:3b unloaded, with llama3.2:latest (same weights)\n")


def test_unload_in_json_shows_the_result(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    assert herdbook("unload", "llama3.2:3b", "--json").json == {
        "name": "llama3.2:3b",
        "result": "not_loaded",
    }


def test_rm_reports_the_freed_size(herdbook: Herdbook, server: SandboxThread) -> None:
    answer = herdbook("rm", "smollm2:135m")

    assert answer.code == 0
    assert answer.out == "smollm2:135m deleted; this frees 271 MB\n"


def test_rm_dismisses_the_failure_of_a_pull(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    herdbook("pull", "no-such:1b")
    answer = herdbook("rm", "no-such:1b")

    assert answer.code == 0
    assert answer.out == ("no-such:1b was not on the server; dismissed its failure\n")
    assert "no-such" not in herdbook("ls").out
    assert "failure dismissed" in herdbook("history", "no-such:1b").out


def test_rm_says_that_shared_weights_stay(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    herdbook("pull", "llama3.2:latest")

    result = herdbook("rm", "llama3.2:3b", "--json").json

    assert result == {
        "name": "llama3.2:3b",
        "freed_bytes": 0,
        "shared_with": ["llama3.2:latest"],
    }
    assert "frees" in herdbook("rm", "llama3.2:latest").out


def test_rm_in_text_says_that_shared_weights_stay(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    herdbook("pull", "llama3.2:latest")

    answer = herdbook("rm", "llama3.2:3b")

    assert "frees almost no space: same weights as llama3.2:latest" in answer.out


def test_use_records_the_actor_and_the_purpose(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    answer = herdbook("use", "llama3.2:3b", "--for", "a test")

    assert answer.out == "llama3.2:3b used: a test\n"
    assert "used: a test" in herdbook("history", "llama3.2:3b").out
    assert "by cli:ann" in herdbook("history", "llama3.2:3b").out


def test_use_in_json_is_the_model(herdbook: Herdbook, server: SandboxThread) -> None:
    assert herdbook("use", "llama3.2:3b", "--json").json["uses"] == 1


def test_config_sets_and_shows(herdbook: Herdbook, server: SandboxThread) -> None:
    answer = herdbook("config", "llama3.2:3b", "num_ctx=4096", "pinned=true")

    assert answer.code == 0
    assert [line.split() for line in answer.out.splitlines()] == [
        ["SETTING", "VALUE"],
        ["num_ctx", "4096"],
        ["pinned", "true"],
    ]


def test_config_takes_common_settings_as_options(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    options = ["--num-ctx", "4k", "--temperature", "0.2", "--keep-alive", "10m"]
    herdbook("config", "llama3.2:3b", *options)

    answer = herdbook("config", "llama3.2:3b", "--json").json
    assert answer["settings"] == {
        "keep_alive": "10m",
        "num_ctx": 4096,
        "temperature": 0.2,
    }
    wrong = herdbook("config", "llama3.2:3b", "--num-ctx", "many")
    assert (wrong.code, "num_ctx" in wrong.err) == (2, True)


def test_config_unsets_with_a_note(herdbook: Herdbook, server: SandboxThread) -> None:
    herdbook("config", "llama3.2:3b", "num_ctx=4096")

    answer = herdbook("config", "llama3.2:3b", "--unset", "num_ctx", "--note", "done")

    assert answer.out == (
        "llama3.2:3b has no settings: the defaults of the model and the server apply.\n"
    )
    assert 'num_ctx removed (was: 4096): "done"' in herdbook("history").out


def test_config_in_json_has_the_effective_options(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    herdbook("config", "llama3.2:3b", "num_ctx=4096", "keep_alive=10m")

    result = herdbook("config", "llama3.2:3b", "--json").json

    assert result["settings"] == {"num_ctx": 4096, "keep_alive": "10m"}
    assert result["options"]["num_ctx"] == 4096
    assert result["keep_alive"] == "10m"


def test_config_of_a_known_model_needs_no_server(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    herdbook("ls")
    seen = len(server.world.seen)

    assert herdbook("config", "llama3.2:3b", "num_ctx=4096").code == 0
    assert len(server.world.seen) == seen


@pytest.mark.parametrize("user", ["", "a\x07b", "x" * 500])
def test_any_user_can_be_recorded(
    herdbook: Herdbook,
    server: SandboxThread,
    monkeypatch: pytest.MonkeyPatch,
    user: str,
) -> None:
    monkeypatch.setenv("LOGNAME", user)

    assert herdbook("use", "llama3.2:3b").code == 0


def test_load_takes_a_context_as_people_type_it(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    loaded = herdbook("load", "llama3.2:3b", "--num-ctx", "2k", "--json").out

    assert json.loads(loaded[loaded.index("{") :])["context"]["in_effect"] == 2048
    assert herdbook("load", "llama3.2:3b", "--num-ctx", "many").code == 2


def test_config_says_when_a_change_takes_effect(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    herdbook("load", "llama3.2:3b")
    assert "at the next load" in herdbook("config", "llama3.2:3b", "num_ctx=2k").out
    assert "effect" not in herdbook("config", "llama3.2:3b", "pinned=true").out
    herdbook("config", "llama3.2:3b", "pinned=false")
    herdbook("rm", "llama3.2:3b", "--yes")

    gone = herdbook("config", "llama3.2:3b", "num_ctx=4k")

    assert "is not on the server: the change takes effect when it is pulled" in gone.out
