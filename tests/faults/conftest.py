"""Scenarios of one server and one manager, shown by the command line afterwards."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from faults.cli_view import RunScenario, Scenario, ScenarioResult
from support.cli_runner import command_runner
from support.manager_fixture import serve_sandbox

from herdbook import sandbox
from herdbook.core import ManagerSettings, ModelStatus


@pytest.fixture
def run_scenario(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> RunScenario:
    """Return a function that runs a scenario against a server and returns its results.

    Whatever the scenario is, the log is intact afterwards, and the command, which reads
    it from the start, shows every model in the state that the manager reported.
    """
    log = tmp_path / "herd.db"
    monkeypatch.setenv("HERDBOOK_DB", str(log))

    herdbook = command_runner(capsys)

    def live(
        scenario: Scenario,
        *,
        models: str = "herd",
        sandbox_settings: sandbox.Settings | None = None,
        settings: ManagerSettings | None = None,
    ) -> ScenarioResult:
        async def to_its_end() -> dict[str, ModelStatus]:
            async with (
                serve_sandbox(models, settings=sandbox_settings) as server,
                server.open_manager(log, settings=settings) as manager,
            ):
                await scenario(server, manager)
                return {one.name: one for one in await manager.all_statuses()}

        result = ScenarioResult(herdbook, asyncio.run(to_its_end()))
        shown = herdbook("ls", "--all", "--json", "--no-refresh").json
        assert {one["name"]: one["state"] for one in shown} == {
            name: status.state for name, status in result.statuses.items()
        }
        assert herdbook("verify").code == 0
        return result

    return live
