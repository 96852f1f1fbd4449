from __future__ import annotations

from pathlib import Path

import pytest
from support.cli_runner import Herdbook, SandboxThread

from herdbook.cli.render.costs import line_of
from herdbook.core import CostSource, Figure, LoadCost, PullCost

UNKNOWN = Figure(size_bytes=None, source=CostSource.UNKNOWN, note="not known")
KNOWN = Figure(size_bytes=4_700_000_000, source=CostSource.DISK, note="/m")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder that OLLAMA_MODELS names."""
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path))
    return tmp_path


def test_pull_shows_its_cost_first(
    herdbook: Herdbook, server: SandboxThread, folder: Path
) -> None:
    first, *_, last = herdbook("pull", "qwen3:0.6b").out.splitlines()

    assert first.startswith("qwen3:0.6b: ")
    assert first.endswith(f"free in {folder}")
    assert "unknown" not in first
    assert last.startswith("qwen3:0.6b pulled in ")


def test_dry_run_of_a_pull_downloads_nothing(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    answer = herdbook("pull", "llama3.1", "--dry-run")

    assert answer.code == 0
    assert answer.out.startswith(
        "llama3.1:latest: download of up to 4.7 GB (catalogue)"
    )
    assert "unknown" not in answer.out
    assert herdbook("history", "llama3.1").code == 3


def test_json_dry_run_of_a_pull_has_every_source(
    herdbook: Herdbook, server: SandboxThread, folder: Path
) -> None:
    result = herdbook("pull", "llama3.1", "--dry-run", "--json").json

    assert result["update"] is False
    assert result["fetch"] == {
        "size_bytes": 4_700_000_000,
        "source": "catalogue",
        "note": "Ollama's README, table of example models",
    }
    assert (result["free"]["source"], result["free"]["note"]) == ("disk", str(folder))


def test_load_shows_its_cost_first(herdbook: Herdbook, server: SandboxThread) -> None:
    first, last = herdbook("load", "llama3.2:3b").out.splitlines()

    assert (
        first == "llama3.2:3b: needs at least 2.0 GB of memory; nothing else is loaded"
    )
    assert last.startswith("llama3.2:3b loaded in ")


def test_dry_run_of_a_load_loads_nothing(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    assert herdbook("load", "llama3.2:3b", "--dry-run").code == 0

    assert herdbook("show", "llama3.2:3b", "--json").json["state"] == "available"


def test_json_dry_run_of_a_load_has_every_source(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    result = herdbook("load", "llama3.2:3b", "--dry-run", "--json").json

    assert (result["loaded"], result["runners"]) == (False, 0)
    assert result["size"]["source"] == "tags"
    assert result["held"] == {"size_bytes": 0, "source": "ps", "note": ""}


def test_json_output_does_not_contain_the_cost(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    assert herdbook("load", "llama3.2:3b", "--json").json["state"] == "loaded"


def test_dry_run_of_a_load_requires_the_model(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    assert herdbook("load", "nobody:1b", "--dry-run").code == 3


@pytest.mark.parametrize(
    ("cost", "line"),
    [
        (
            PullCost(name="a:1b", update=True, fetch=KNOWN, free=KNOWN),
            "a:1b: update of up to 4.7 GB (catalogue); 4.7 GB free in /m",
        ),
        (
            PullCost(name="a:1b", update=False, fetch=UNKNOWN, free=UNKNOWN),
            "a:1b: download size not known",
        ),
        (
            LoadCost(name="a:1b", loaded=True, size=KNOWN, held=KNOWN, runners=1),
            "a:1b: already loaded; 1 runner loaded, 4.7 GB in total",
        ),
        (
            LoadCost(name="a:1b", loaded=False, size=UNKNOWN, held=KNOWN, runners=2),
            "a:1b: size unknown: not known; 2 runners loaded, 4.7 GB in total",
        ),
    ],
)
def test_cost_is_one_line(cost: PullCost | LoadCost, line: str) -> None:
    assert line_of(cost, alone=True) == line


def test_pull_omits_unknown_costs() -> None:
    unknown = PullCost(name="a:1b", update=False, fetch=UNKNOWN, free=UNKNOWN)
    half = PullCost(name="a:1b", update=False, fetch=KNOWN, free=UNKNOWN)

    assert line_of(unknown, alone=False) is None
    assert line_of(half, alone=False) == "a:1b: download of up to 4.7 GB (catalogue)"
