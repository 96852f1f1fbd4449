from __future__ import annotations

import asyncio
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from support.cli_runner import Herdbook, SandboxThread

from herdbook.core.desired.desired import read

PAGE = (Path(__file__).parents[4] / "docs" / "desired.md").read_text()
SOME = (
    "gemma3:4b",
    "llama3.2:3b",
    "nomic-embed-text:latest",
    "qwen2.5-coder:7b",
    "smollm2:135m",
)


@pytest.fixture
def wanted(tmp_path: Path) -> Path:
    """Return a file that wants another herd than there is."""
    path = tmp_path / "herd.toml"
    path.write_text(
        '[models."llama3.2:3b"]\nnum_ctx = 4096\npinned = true\nnote = "long"\n'
        '[models."qwen3:0.6b"]\nloaded = true\n'
    )
    return path


def present(herdbook: Herdbook) -> list[str]:
    return [model["name"] for model in herdbook("ls", "--json").json]


@pytest.mark.usefixtures("server")
def test_plan_shows_the_steps_with_their_bytes(
    herdbook: Herdbook, wanted: Path
) -> None:
    answer = herdbook("apply", str(wanted), "--plan", "--prune")
    lines = answer.out.splitlines()

    assert answer.code == 0
    assert lines[1].split() == [
        "pull",
        "qwen3:0.6b",
        "unknown",
        "size",
        "to",
        "download",
    ]
    assert lines[2].endswith(
        "num_ctx set to 4096 (was: not set), pinned set to true (was: not set)"
    )
    assert lines[3].split()[:2] == ["delete", "gemma3:4b"]
    assert lines[3].endswith("frees 3.3 GB")
    assert lines[-1] == "7 steps · 1 model of unknown size to download · 8.6 GB freed"


@pytest.mark.usefixtures("server")
def test_apply_with_plan_changes_nothing(herdbook: Herdbook, wanted: Path) -> None:
    herdbook("apply", str(wanted), "--plan", "--prune")

    assert sorted(present(herdbook)) == [*SOME]


@pytest.mark.usefixtures("server")
def test_second_apply_has_nothing_to_do(herdbook: Herdbook, wanted: Path) -> None:
    first = herdbook("apply", str(wanted))
    second = herdbook("apply", str(wanted))

    assert first.out.splitlines()[-3:] == [
        "qwen3:0.6b pulled",
        "llama3.2:3b configured",
        "qwen3:0.6b loaded",
    ]
    assert second.out == f"Nothing to do: the server matches {wanted}.\n"
    assert sorted(present(herdbook)) == sorted([*SOME, "qwen3:0.6b"])
    assert ': "long"' in herdbook("history", "llama3.2:3b").out


@pytest.mark.usefixtures("server")
def test_prune_deletes_with_yes(herdbook: Herdbook, wanted: Path) -> None:
    answer = herdbook("apply", str(wanted), "--prune", "--yes")

    assert answer.code == 0
    assert sorted(present(herdbook)) == ["llama3.2:3b", "qwen3:0.6b"]


@pytest.mark.parametrize("more", [[], ["--json"]])
@pytest.mark.usefixtures("server")
def test_prune_without_a_terminal_requires_yes(
    herdbook: Herdbook, wanted: Path, more: list[str]
) -> None:
    answer = herdbook("apply", str(wanted), "--prune", *more)

    assert answer.code == 2
    assert "needs confirmation" in answer.err
    assert sorted(present(herdbook)) == [*SOME]


@pytest.mark.usefixtures("server")
def test_failed_apply_shows_the_skipped_steps(
    herdbook: Herdbook, tmp_path: Path
) -> None:
    path = tmp_path / "herd.toml"
    path.write_text('[models."no-such:1b"]\n[models."smollm2:135m"]\nloaded = true\n')
    answer = herdbook("apply", str(path))

    assert answer.code == 3
    assert answer.out.splitlines()[-2:] == [
        "failed: pull no-such:1b",
        "skipped: load smollm2:135m",
    ]
    assert "the registry does not have it" in answer.err


@pytest.mark.usefixtures("server")
def test_apply_unloads_models_that_should_not_be_loaded(
    herdbook: Herdbook, tmp_path: Path
) -> None:
    herdbook("load", "smollm2:135m")
    path = tmp_path / "herd.toml"
    path.write_text('[models."smollm2:135m"]\nloaded = false\n')
    answer = herdbook("apply", str(path))

    assert "of memory" in answer.out.splitlines()[1]
    assert answer.out.splitlines()[-1] == "smollm2:135m unloaded"


@pytest.mark.usefixtures("server")
def test_plan_shows_what_remains_on_disk(herdbook: Herdbook, tmp_path: Path) -> None:
    herdbook("pull", "llama3.2:latest")
    herdbook("config", "llama3.2:3b", "pinned=true")
    path = tmp_path / "herd.toml"
    path.write_text('[models."llama3.2:3b"]\n')
    out = herdbook("apply", str(path), "--plan", "--prune").out

    assert "frees almost no space: same weights as llama3.2:3b" in out
    assert "pinned unset (was: true)" in out


@pytest.mark.usefixtures("server")
def test_invalid_file_is_reported_in_one_line(herdbook: Herdbook, wanted: Path) -> None:
    wanted.write_text("[models.x]\nnum_ctx = 1\n")
    answer = herdbook("apply", str(wanted))

    assert answer.code == 2
    assert len(answer.err.splitlines()) == 1
    assert "key num_ctx of model x must be a whole number" in answer.err


@pytest.mark.usefixtures("no_server")
def test_apply_requires_the_server(herdbook: Herdbook, wanted: Path) -> None:
    assert herdbook("apply", str(wanted), "--plan").code == 5


@pytest.mark.usefixtures("server")
def test_plan_answers_in_its_documented_shape(herdbook: Herdbook, wanted: Path) -> None:
    found = herdbook("apply", str(wanted), "--plan", "--prune", "--json").json

    assert [*found] == [
        "origin",
        "steps",
        "fetch_bytes",
        "unknown_sizes",
        "frees_bytes",
    ]
    shapes = {each["step"]: {*each} - {"step", "name"} for each in found["steps"]}
    assert shapes == {
        "pull": {"size_bytes"},
        "configure": {"set", "unset", "was", "note"},
        "delete": {"frees_bytes", "shared_with"},
        "load": {"size_bytes"},
    }


@pytest.mark.usefixtures("server")
def test_apply_answers_in_lines(herdbook: Herdbook, wanted: Path) -> None:
    lines = herdbook("apply", str(wanted), "--json").json_lines
    steps = [line for line in lines if "step" in line]

    assert [(each["step"]["step"], each["state"]) for each in steps] == [
        ("pull", "done"),
        ("configure", "done"),
        ("load", "done"),
    ]
    assert {line["state"] for line in lines if line not in steps} <= {"pulling"}


@pytest.mark.usefixtures("server")
def test_failed_apply_in_json_lists_the_skipped_steps(
    herdbook: Herdbook, tmp_path: Path
) -> None:
    path = tmp_path / "herd.toml"
    path.write_text('[models."no-such:1b"]\n[models."smollm2:135m"]\nloaded = true\n')
    lines = herdbook("apply", str(path), "--json").json_lines

    states = [line["state"] for line in lines if "step" in line]
    assert states == ["failed", "left"]


@pytest.mark.usefixtures("server")
def test_apply_has_nothing_to_do_for_a_frozen_set(
    herdbook: Herdbook, tmp_path: Path
) -> None:
    herdbook("config", "gemma3:4b", "num_ctx=8192", "notes=eyes", "options.top_k=4")
    herdbook("load", "gemma3:4b")
    path = tmp_path / "herd.toml"
    path.write_text(herdbook("freeze").out)
    answer = herdbook("apply", str(path), "--prune", "--yes")

    assert path.read_text().startswith("# Models of local on 20")
    assert tomllib.loads(path.read_text())["models"]["gemma3:4b"] == {
        "loaded": True,
        "num_ctx": 8192,
        "notes": "eyes",
        "options": {"top_k": 4},
    }
    assert answer.out.startswith("Nothing to do")


@pytest.mark.usefixtures("server")
def test_freeze_answers_in_its_documented_shape(herdbook: Herdbook) -> None:
    found = herdbook("freeze", "--json").json

    assert [*found] == ["models", "origin"]
    assert found["models"][0] == {
        "name": "gemma3:4b",
        "loaded": None,
        "settings": {},
        "note": "",
        "nodes": [],
        "tags": {},
    }


def test_freeze_without_a_server_uses_the_log(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    herdbook("ls")
    server.apply(server="killed")

    assert tomllib.loads(herdbook("freeze", "--no-refresh").out)["models"]


def blocks(language: str) -> list[str]:
    """Return the blocks of the documentation in a language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_example_of_the_documentation_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "herd.toml"
    path.write_text(blocks("toml")[0])
    first, second, third = read(path).models

    assert (first.loaded, first.note) == (True, "agents read long files")
    assert (first.settings["options.top_k"], len(first.settings)) == (40, 8)
    assert (second.name, third.name) == ("qwen2.5-coder:7b", "nomic-embed-text:latest")


def test_usage_error_is_reported_as_documented(
    herdbook: Herdbook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("herd.toml").write_text('[models."llama3.1:8b"]\nnum_ctx = 1\n')

    assert herdbook("apply", "herd.toml").err == blocks("text")[0]


def test_example_in_python_runs(
    server: SandboxThread,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("herd.toml").write_text('[models."smollm2:135m"]\nloaded = true\n')
    names: dict[str, Any] = {}
    exec(blocks("python")[0], names)
    asyncio.run(names["example"](server.address))

    assert capsys.readouterr().out.splitlines() == [
        "0 0",
        "smollm2:135m None False",
        "smollm2:135m None True",
    ]
