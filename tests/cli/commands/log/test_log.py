from __future__ import annotations

import pytest
from support.cli_runner import Herdbook
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


@pytest.mark.parametrize(
    "options",
    [
        ("--after", "0", "--limit", "1"),
        ("--since", "today", "--limit", "1"),
        ("--until", "now"),
    ],
)
def test_follow_refuses_options_that_would_leave_out_events(
    herdbook: Herdbook, options: tuple[str, ...]
) -> None:
    answer = herdbook("log", "--follow", *options)

    assert answer.code == 2
    assert "--follow" in answer.err
