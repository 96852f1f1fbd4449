"""Stories of one server and one manager, told by the command line afterwards."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from faults.cli_view import EventEntry, Lived, Story
from support.cli_runner import Answer
from support.manager_fixture import served

from herdbook import sandbox
from herdbook.cli import run
from herdbook.core import ManagerSettings, ModelStatus


@pytest.fixture
def lived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Lived:
    """Return what lives a story against a server, and gives what is told of it.

    Whatever the story is, the log is whole afterwards, and the command, which folds
    it anew, shows every model in the state that the manager saw it in.
    """
    log = tmp_path / "herd.db"
    monkeypatch.setenv("HERDBOOK_DB", str(log))

    def herdbook(*words: str) -> Answer:
        capsys.readouterr()
        code = run(words)
        out, err = capsys.readouterr()
        return Answer(code, out, err)

    def live(
        story: Story,
        *,
        models: str = "herd",
        server: sandbox.Settings | None = None,
        settings: ManagerSettings | None = None,
    ) -> EventEntry:
        async def to_its_end() -> dict[str, ModelStatus]:
            async with (
                served(models, settings=server) as place,
                place.herd(log, settings=settings) as herd,
            ):
                await story(place, herd)
                return {one.name: one for one in await herd.all_statuses()}

        told = EventEntry(herdbook, asyncio.run(to_its_end()))
        shown = herdbook("ls", "--all", "--json", "--no-refresh").json
        assert {one["name"]: one["state"] for one in shown} == {
            name: status.state for name, status in told.statuses.items()
        }
        assert herdbook("verify").code == 0
        return told

    return live
