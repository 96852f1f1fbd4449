from __future__ import annotations

from support.cli_runner import Herdbook, SandboxThread

from herdbook.core import ModelState
from herdbook.presentation.diagram import edges, mermaid


def test_graph_draws_every_edge_of_the_table(herdbook: Herdbook) -> None:
    answer = herdbook("graph")

    assert answer.out.startswith("stateDiagram-v2\n    [*] --> not_present\n")
    assert len(answer.out.splitlines()) == 2 + len(edges())
    assert "    loaded --> available: ModelUnloaded\n" in answer.out


def test_graph_of_a_model_counts_and_marks(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    herdbook("load", "llama3.2:3b")

    answer = herdbook("graph", "llama3.2:3b")

    assert "loading --> loaded: 1 x ModelLoaded" in answer.out
    assert "class loaded here" in answer.out


def test_graph_in_json_has_counts_by_edge(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    herdbook("ls")

    result = herdbook("graph", "llama3.2:3b", "--json").json

    assert result["transitions"] == {"not_present>available": 1}
    assert herdbook("graph", "--json").json["transitions"] is None


def test_mermaid_shows_no_count_for_unused_transitions() -> None:
    text = mermaid({}, ModelState.ERROR)

    assert "loading --> error: 0 x PullFailed, LoadFailed" in text
    assert text.endswith("class error here")
