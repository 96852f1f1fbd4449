from __future__ import annotations

from support.cli_runner import Herdbook, SandboxThread


def test_refresh_shows_the_changes(herdbook: Herdbook, server: SandboxThread) -> None:
    answer = herdbook("refresh")

    assert "llama3.2:3b               found: 2.0 GB" in answer.out
    assert answer.out.splitlines()[-1] == (
        "Ollama 0.32.15: 5 models, 0 loaded; 11 new events"
    )


def test_refresh_reports_no_changes(herdbook: Herdbook, server: SandboxThread) -> None:
    herdbook("ls")

    assert herdbook("refresh").out == (
        "Ollama 0.32.15: 5 models, 0 loaded; no changes\n"
    )


def test_refresh_in_json_has_the_recorded_events(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    herdbook("ls")
    server.apply(manifest_deleted="smollm2:135m")

    result = herdbook("refresh", "--json").json

    assert {*result} == {"node", "models", "runners", "recorded"}
    assert [entry["type"] for entry in result["recorded"]] == ["ModelVanished"]


def test_refresh_requires_the_server(herdbook: Herdbook, no_server: None) -> None:
    assert herdbook("refresh").code == 5
