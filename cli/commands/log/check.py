"""Verbs that check: ``verify``, ``refresh`` and ``graph``."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from herdbook.cli.app import HISTORY, INSPECT, verb
from herdbook.cli.commands.log.events import events_between
from herdbook.cli.commands.log.history import show_entries
from herdbook.cli.commands.log.proof import read_anchors, read_keys
from herdbook.cli.errors import DONE, FAILED, UsageError, exit_code
from herdbook.cli.invocation import Invocation
from herdbook.cli.lookup import check_log, known_status, node_for
from herdbook.cli.options import AnyModel
from herdbook.cli.output import Column, Piece, Row, Screen
from herdbook.core import (
    Fleet,
    HerdbookError,
    HistoryEntry,
    ModelManager,
    OllamaError,
    ServerState,
    Storage,
    SystemClock,
    Verification,
)
from herdbook.core.checks.verification import verify as check
from herdbook.core.proof.proof import check_anchors
from herdbook.events.store import Head
from herdbook.events.streams import is_of_node
from herdbook.presentation import diagram as drawing
from herdbook.presentation import shapes
from herdbook.presentation.wording import counted
from herdbook.projections.history import HistoryView


@verb("verify", HISTORY)
async def verify(
    invocation: Invocation,
    *,
    anchor: Annotated[
        list[str] | None,
        typer.Option(
            metavar="POSITION:HASH",
            help="A position and hash noted earlier, to find in the log. Repeatable.",
        ),
    ] = None,
    anchors: Annotated[
        list[Path] | None,
        typer.Option(
            "--anchors",
            metavar="FILE",
            help="File of anchors printed by herdbook anchor. Repeatable.",
        ),
    ] = None,
    key: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Public key; each anchor must be signed with one of them. Repeatable.",
        ),
    ] = None,
    accept: Annotated[
        bool,
        typer.Option(
            "--accept",
            help="Accept the loss of recorded events, and continue without them.",
        ),
    ] = False,
) -> int:
    """Check every event of the log.

    Checks hashes, positions, versions, data, streams, state transitions and the file.
    Needs no server. The exit code is 1 if there are findings.

    --accept continues with a log that lost its last events or has a damaged
    write-ahead log. Copy the log and the files next to it first.
    """
    heads = [_anchor(text) for text in anchor or ()]
    made, public = read_anchors(anchors or ()), read_keys(key or ())
    log = invocation.log
    await check_log(log)
    began = time.perf_counter()
    async with Storage.open(
        log, SystemClock(), accept_loss=accept, reading=not accept
    ) as storage:
        found = await check(storage, anchors=heads)
        more = await check_anchors(storage, made, public)
        found = msgspec.structs.replace(found, findings=(*found.findings, *more))
    seconds = time.perf_counter() - began
    if invocation.json:
        invocation.screen.write_json(
            shapes.Verified(
                events=found.events,
                position=found.head.position,
                hash=found.head.hash,
                findings=found.findings,
                seconds=round(seconds, 3),
            )
        )
    else:
        _write_findings(invocation.screen, found, seconds)
    return FAILED if found.findings else DONE


def _anchor(text: str) -> Head:
    found = re.fullmatch(r"#?([1-9][0-9]*):([0-9a-f]{64})", text.strip().lower())
    if found is None:
        raise UsageError(
            f"{text!r}",
            "is not a valid anchor",
            "Write POSITION:HASH; verify --json prints both",
        )
    return Head(int(found[1]), found[2])


def _write_findings(screen: Screen, found: Verification, seconds: float) -> None:
    rows = [
        Row(
            [
                Piece(f"#{finding.position}" if finding.position else "log"),
                Piece(finding.kind.value, "bold red"),
                Piece(
                    f"{finding.message}. {finding.remedy}"
                    if finding.remedy
                    else finding.message
                ),
            ]
        )
        for finding in found.findings
    ]
    columns = (Column("AT", right=True), Column("KIND"), Column("MESSAGE"))
    screen.write_table(columns, rows, headers=False)
    screen.write(_summary(found, seconds))


def _summary(found: Verification, seconds: float) -> str:
    if not found.events and not found.findings:
        return "no events yet"
    condition = (
        "damaged"
        if found.findings
        else f"chain intact from #1 to #{found.head.position}"
    )
    return (
        f"{counted(found.events, 'event')}, {condition}, head {found.head.hash[:8]}…, "
        f"{counted(len(found.findings), 'finding')}, {seconds:.2f} s"
    )


@verb("refresh", INSPECT)
async def refresh(invocation: Invocation) -> int:
    """Refresh from the server; record and show changes.

    Of several nodes, all are refreshed at the same time. The exit code is 5 if one
    does not answer.
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
        found = f"{counted(len(state.models), 'model')}, {len(state.runners)} loaded"
        changes = counted(len(new), "new event") if new else "no changes"
        screen.write(f"{lead}Ollama {state.server_version}: {found}; {changes}")


@verb("graph", INSPECT)
async def graph(invocation: Invocation, model: AnyModel = None) -> None:
    """Print the state diagram, in Mermaid.

    With a model, adds its number of transitions and marks its state.
    """
    transitions, state = None, None
    if model is not None:
        async with invocation.reading(refresh=False) as fleet:
            manager = await node_for(invocation, fleet, model)
            status = known_status(await manager.now(), model)
            figures = await manager.statistics(status.name)
            transitions, state = figures.transitions, figures.lifecycle.state
    text = drawing.mermaid(transitions, state)
    if invocation.json:
        invocation.screen.write_json(
            shapes.Graph(mermaid=text, transitions=transitions)
        )
    else:
        for each in text.splitlines():
            invocation.screen.write(each)
