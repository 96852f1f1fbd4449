from __future__ import annotations

import pytest
from support.cli_runner import Herdbook, SandboxThread

from herdbook.cli.options import size_option
from herdbook.presentation.wording import NOTHING

MODEL_KEYS = {
    "name",
    "node",
    "state",
    "activity",
    "present",
    "updating",
    "since",
    "stale_since",
    "version",
    "digest",
    "weights",
    "size_bytes",
    "remote_host",
    "family",
    "parameter_count",
    "quantization",
    "parameters",
    "context",
    "capabilities",
    "settings",
    "runner",
    "uses",
    "last_used_at",
    "last_used_by",
    "last_used_within_s",
    "last_failure",
    "work",
    "update",
}


def test_ls_lists_the_models_with_a_footer(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    answer = herdbook("ls")

    lines = answer.out.splitlines()
    assert answer.code == 0
    assert " ".join(lines[0].split()) == "MODEL STATE SIZE CONTEXT CAN LAST USED"
    assert "qwen2.5-coder:7b          available   4.7 GB   32k" in answer.out
    assert lines[-1] == (
        "local · Ollama 0.32.15 · 5 models, 10.6 GB on disk · event 11"
    )


def test_ls_in_json_is_an_array_of_models(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    models = herdbook("ls", "--json").json

    assert [model["name"] for model in models] == sorted(m["name"] for m in models)
    assert {*models[0]} == MODEL_KEYS
    assert models[0]["since"].endswith("Z")


def test_ls_shows_loaded_models_first(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    herdbook("load", "llama3.2:3b", "--num-ctx", "8192")

    lines = herdbook("ls").out.splitlines()

    assert " ".join(lines[1].split()[:7]) == "llama3.2:3b loaded 2.0 GB 8k of 128k"
    assert "in memory" in lines[-1]


def test_ls_marks_models_that_share_weights(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    herdbook("pull", "llama3.2:latest")

    answer = herdbook("ls")

    lines = answer.out.splitlines()
    at = lines.index("llama3.2:latest (same weights as llama3.2:3b)")
    assert lines[at - 1].startswith("llama3.2:3b  ")
    assert lines[at + 1].split()[0] == "available"
    assert "GB with shared weights counted for each model)" in answer.out


def test_ls_shows_a_failure_and_its_remedy(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    server.apply(disk_bytes=1_000_000)
    herdbook("pull", "mistral:7b")

    answer = herdbook("ls")

    assert "mistral:7b                error" in answer.out
    assert "  pull failed " in answer.out
    assert "the server's disk is full" in answer.out
    assert "then pull it again" in answer.out


def test_ls_omits_deleted_models_by_default(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    herdbook("rm", "smollm2:135m")

    assert "smollm2" not in herdbook("ls").out
    assert "smollm2:135m              not present" in herdbook("ls", "--all").out


def test_ls_without_a_server_shows_the_log_as_stale(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    herdbook("ls")
    server.apply(server="killed")

    answer = herdbook("ls")

    assert answer.code == 0
    assert "qwen2.5-coder:7b" in answer.out
    assert "Ollama 0.32.15, stale since " in answer.out
    assert herdbook("ls", "--json").json[0]["stale_since"].endswith("Z")


def test_ls_on_an_empty_log_without_a_server_says_what_to_do(
    herdbook: Herdbook, no_server: None
) -> None:
    answer = herdbook("ls")

    assert answer.code == 0
    assert answer.out.startswith("Ollama at http://127.0.0.1:9 cannot be reached")


def test_ls_without_refresh_makes_no_request(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    herdbook("ls")
    seen = len(server.world.seen)

    answer = herdbook("ls", "--no-refresh")

    assert "Ollama 0.32.15, not refreshed" in answer.out
    assert len(server.world.seen) == seen


def test_a_refresh_that_finds_nothing_new_records_nothing(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    first = herdbook("ls").out

    assert herdbook("ls").out == first


def test_ls_on_a_server_without_models_says_how_to_find_one(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    for model in herdbook("ls", "--json").json:
        server.apply(manifest_deleted=model["name"])

    assert herdbook("ls").out.startswith("No models yet. To find one: herdbook")


def test_show_prints_each_fact_with_its_source(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    herdbook("config", "qwen2.5-coder:7b", "num_ctx=16384")

    answer = herdbook("show", "qwen2.5-coder:7b")

    assert answer.out.startswith("qwen2.5-coder:7b   available since ")
    for result in (
        "(found: 4.7 GB, digest ",
        "7.62 B parameters, Q4_K_M, 4.7 GB",
        f"trained 32,768 (/api/show)   configured 16,384   in effect {NOTHING}",
        "coding (catalogue)",
        "tools (/api/show)",
        "cannot      embedding, thinking, vision",
        "num_ctx 16384 (configured)",
        "used        never (no use recorded)",
        "Next: herdbook history qwen2.5-coder:7b · herdbook load qwen2.5-coder:7b",
    ):
        assert result in answer.out


def test_show_prints_memory_and_use(herdbook: Herdbook, server: SandboxThread) -> None:
    herdbook("load", "llama3.2:3b")
    herdbook("use", "llama3.2:3b")

    answer = herdbook("show", "llama3.2:3b")

    assert "GPU" in answer.out
    assert "used        1 time, last " in answer.out
    assert "herdbook unload llama3.2:3b" in answer.out


def test_show_prints_a_failure_first(herdbook: Herdbook, server: SandboxThread) -> None:
    herdbook("pull", "no-such:1b")

    answer = herdbook("show", "no-such:1b")

    assert "error since" in answer.out
    assert "failure     pull failed" in answer.out
    assert f"weights     {NOTHING}" in answer.out
    assert "herdbook pull no-such:1b" in answer.out.splitlines()[-1]


def test_show_has_the_time_since_the_server_is_unreachable(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    herdbook("ls")
    server.apply(server="killed")

    assert ", stale since " in herdbook("show", "llama3.2:3b").out.splitlines()[0]


def test_show_in_json_has_the_format_of_ls(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    assert {*herdbook("show", "llama3.2:3b", "--json").json} == MODEL_KEYS


def test_recommend_lists_the_ranking_with_reasons(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    herdbook("load", "llama3.2:3b")
    herdbook("use", "llama3.2:3b")

    answer = herdbook("recommend", "general")

    lines = answer.out.splitlines()
    assert answer.code == 0
    assert lines[0].startswith("use    llama3.2:3b")
    assert "; loaded; " in lines[0]
    assert "   used " in lines[0]
    assert lines[1].startswith("then   ")
    assert "not    nomic-embed-text:latest   does not support completion" in answer.out


def test_recommend_shows_how_to_pull_a_deleted_model(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    herdbook("rm", "qwen2.5-coder:7b")

    answer = herdbook("recommend", "coding")

    assert answer.code == 3
    assert "not present (herdbook pull qwen2.5-coder:7b" in answer.out
    assert answer.out.endswith(
        "No model fits the coding role. To find one: herdbook suggest coding\n"
    )


def test_recommend_without_a_role_shows_the_first_choice_of_each(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    answer = herdbook("recommend")

    assert len(answer.out.splitlines()) == 1 + 7
    assert "vision      gemma3:4b" in answer.out
    assert f"thinking    {NOTHING}" in answer.out
    assert [each["role"] for each in herdbook("recommend", "--json").json][:2] == [
        "general",
        "coding",
    ]


def test_recommend_in_json_has_chosen_and_passed_over(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    result = herdbook("recommend", "coding", "--json").json

    assert {*result} == {"role", "chosen", "passed_over"}
    assert result["chosen"][0]["name"] == "qwen2.5-coder:7b"


def test_suggest_shows_the_pull_command(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    answer = herdbook("suggest", "coding", "--memory", "32GB")

    assert answer.out.splitlines()[1].startswith("herdbook pull ")
    assert "for the coding role in the catalogue" in answer.out
    assert {*herdbook("suggest", "coding", "--json").json[0]} == {
        "pull",
        "role",
        "reason",
        "parameter_count",
        "download_bytes",
        "memory_bytes",
        "note",
    }


def test_suggest_without_matches_says_so(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    answer = herdbook("suggest", "coding", "--memory", "1MB")

    assert answer.out == "The catalogue has no other model for coding that fits.\n"


@pytest.mark.parametrize(
    ("text", "size"),
    [("16GB", 16_000_000_000), ("8 GiB", 8 * 2**30), ("1.5tb", 1_500_000_000_000)],
)
def test_read_size_accepts_common_notations(text: str, size: int) -> None:
    assert size_option(text) == size


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["LLAMA"], ["llama3.2:3b"]),
        (["--state", "loaded"], ["smollm2:135m"]),
        (["--can", "vision"], ["gemma3:4b"]),
        (["--can", "vision", "--can", "insert"], []),
        (["--family", "qwen"], ["qwen2.5-coder:7b"]),
        (["--larger", "3GB", "--smaller", "4GB"], ["gemma3:4b"]),
        (
            ["--sort", "size"],
            [
                "qwen2.5-coder:7b",
                "gemma3:4b",
                "llama3.2:3b",
                "nomic-embed-text:latest",
                "smollm2:135m",
            ],
        ),
        (
            ["--sort", "name", "--larger", "1GB"],
            ["gemma3:4b", "llama3.2:3b", "qwen2.5-coder:7b"],
        ),
        (
            ["--sort", "size", "--reverse", "--larger", "1GB"],
            ["llama3.2:3b", "gemma3:4b", "qwen2.5-coder:7b"],
        ),
        (
            ["--sort", "can", "-r", "--larger", "1GB"],
            ["gemma3:4b", "qwen2.5-coder:7b", "llama3.2:3b"],
        ),
    ],
    ids=" ".join,
)
def test_ls_filters_and_sorts(
    herdbook: Herdbook, server: SandboxThread, words: list[str], names: list[str]
) -> None:
    herdbook("load", "smollm2:135m")

    answer = herdbook("ls", *words, "--json")

    assert answer.code == 0
    assert [model["name"] for model in answer.json] == names


def test_ls_says_that_no_model_matches(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    assert herdbook("ls", "nothing").out.startswith("No models match.\n")
    hint = "No models match. For a capability: herdbook ls --can tools\n"
    assert herdbook("ls", "Tools").out.startswith(hint)


def test_ls_finds_deleted_models_by_state(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    herdbook("rm", "smollm2:135m")

    answer = herdbook("ls", "--state", "deleted", "--json")

    assert [model["name"] for model in answer.json] == ["smollm2:135m"]


def test_ls_sorts_by_last_use(herdbook: Herdbook, server: SandboxThread) -> None:
    herdbook("use", "smollm2:135m")
    herdbook("use", "gemma3:4b")

    names = [model["name"] for model in herdbook("ls", "--sort", "used", "--json").json]

    assert names[:2] == ["gemma3:4b", "smollm2:135m"]


@pytest.mark.parametrize(
    "verb", [["recommend"], ["suggest", "coding"], ["ps"], ["history"], ["usage"]]
)
def test_reading_verb_says_why_the_server_was_not_read(
    herdbook: Herdbook, server: SandboxThread, verb: list[str]
) -> None:
    page = {"path": "/api/tags", "status": 401, "body": "<html>Sign in</html>"}
    server.apply(answer={**page, "times": 0})

    answer = herdbook(*verb)

    assert "requires authentication (HTTP 401): Sign in" in answer.err
    assert "OLLAMA_API_KEY" in answer.err
    assert len(answer.err.splitlines()) == 1
    assert herdbook(*verb, "--no-refresh").err == ""
