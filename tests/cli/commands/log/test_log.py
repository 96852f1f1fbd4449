from __future__ import annotations

from support.manager_fixture import serve_manager

from herdbook.cli.commands.log.log import _newest
from herdbook.core import HistoryFilter

MODEL = "llama3.2:3b"


async def test_events_recorded_meanwhile_are_left_to_follow() -> None:
    async with serve_manager("some") as (_, manager):
        await manager.mark_used(MODEL, purpose="before")
        end = (await manager.now()).position
        await manager.mark_used(MODEL, purpose="meanwhile")

        found = await _newest(
            manager, HistoryFilter(), "", lambda _: True, limit=5, end=end
        )

    assert [event.position for event in found] == list(range(end - 4, end + 1))
