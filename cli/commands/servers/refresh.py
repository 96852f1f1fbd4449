"""The verb ``refresh``: read the state of the servers, and record the changes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from herdbook.cli.app import INSPECT, verb
from herdbook.cli.commands.log.history import show_entries
from herdbook.cli.commands.log.log import events_between
from herdbook.cli.errors import DONE, exit_code
from herdbook.cli.invocation import Invocation
from herdbook.cli.output import Piece
from herdbook.core import (
    Fleet,
    HerdbookError,
    HistoryEntry,
    ModelManager,
    OllamaError,
    ServerState,
)
from herdbook.events.streams import is_of_node
from herdbook.presentation import shapes
from herdbook.projections.history import HistoryView
from herdbook.projections.sentences import counted


@verb("refresh", INSPECT)
async def refresh(invocation: Invocation) -> int:
    """Refresh from the server; record and show changes.

    With several nodes, all are refreshed at the same time. The exit code is 5 if any
    of them does not answer.
    """
    async with invocation.recording() as fleet:
        before = (await fleet.home.now()).position
        seen = await asyncio.gather(*map(_refreshed, fleet.managers()))
        if not fleet.is_several and isinstance(seen[0], HerdbookError):
            raise seen[0]
        end = (await fleet.home.now()).position
        view = HistoryView()
        async for event in events_between(fleet.home, before, end):
            view.apply(event)
        _write_refreshed(invocation, fleet, seen, view.entries)
    failed = [one for one in seen if isinstance(one, HerdbookError)]
    return max(map(exit_code, failed), default=DONE)


async def _refreshed(manager: ModelManager) -> ServerState | OllamaError:
    try:
        return await manager.refresh()
    except OllamaError as error:
        return error


def _write_refreshed(
    invocation: Invocation,
    fleet: Fleet,
    seen: Sequence[ServerState | OllamaError],
    recorded: list[HistoryEntry],
) -> None:
    screen, several = invocation.screen, fleet.is_several
    by_node = dict(zip(fleet.names, seen, strict=True))
    if invocation.json:
        answers = [
            shapes.Refreshed(
                node=fleet.manager(node).latest().node_status(),
                models=0 if isinstance(state, OllamaError) else len(state.models),
                runners=0 if isinstance(state, OllamaError) else len(state.runners),
                recorded=[each for each in recorded if is_of_node(each.stream, node)],
            )
            for node, state in by_node.items()
        ]
        screen.write_json(answers if several else answers[0])
        return
    if recorded:
        show_entries(screen, recorded, invocation.now, named=True, nodes=several)
    for node, state in by_node.items():
        lead = f"{node}: " if several else ""
        if isinstance(state, OllamaError):
            screen.write(Piece(f"{lead}{state}", "yellow"))
            continue
        new = [each for each in recorded if is_of_node(each.stream, node)]
        loaded = f"{len(state.runners)} loaded"
        if not state.reports_all_runners:
            loaded = (
                f"{loaded}, others not reported"
                if state.runners
                else "loaded models not reported"
            )
        found = f"{counted(len(state.models), 'model')}, {loaded}"
        version = fleet.manager(node).latest().node_status().server_version
        changes = counted(len(new), "new event") if new else "no changes"
        screen.write(f"{lead}Ollama {version}: {found}; {changes}")
