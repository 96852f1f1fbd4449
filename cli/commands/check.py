"""Verbs that check: verify the log, refresh what it says, draw what it allows."""

from __future__ import annotations

import re
import time
from typing import Annotated

import typer

from herdbook.cli.app import LOOK, PAST, verb
from herdbook.cli.commands.history import events_between, show_entries
from herdbook.cli.errors import DONE, FAILED, UsageError
from herdbook.cli.invocation import Invocation
from herdbook.cli.lookup import check_log, known_status
from herdbook.cli.options import AnyModel
from herdbook.cli.output import Column, Piece, Row, Screen
from herdbook.core import (
    Storage,
    SystemClock,
    Verification,
)
from herdbook.core.checks.verification import verify as check
from herdbook.events.store import Head
from herdbook.presentation import diagram as drawing
from herdbook.presentation import shapes
from herdbook.presentation.wording import counted
from herdbook.projections.history import HistoryView


@verb("verify", PAST)
async def verify(
    invocation: Invocation,
    *,
    anchor: Annotated[
        list[str] | None,
        typer.Option(
            metavar="POSITION:HASH",
            help="A head written down before; the log must still have it. Repeatable.",
        ),
    ] = None,
    accept: Annotated[
        bool,
        typer.Option(
            "--accept",
            help="Accept that recorded events are missing, and continue without them.",
        ),
    ] = False,
) -> int:
    """Check the whole log, event by event.

    Hashes, positions, versions, data, streams, legality, the file itself. Needs no
    server. Exit code 1 if there are findings.

    --accept continues with a log that lost its end, or whose write-ahead log is
    damaged. Copy the log and the files next to it first.
    """
    anchors = [_anchor(text) for text in anchor or ()]
    log = invocation.log
    check_log(log)
    began = time.perf_counter()
    async with Storage.open(log, SystemClock(), accept_loss=accept) as storage:
        found = await check(storage, anchors=anchors)
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
        _tell(invocation.screen, found, seconds)
    return FAILED if found.findings else DONE


def _anchor(text: str) -> Head:
    found = re.fullmatch(r"#?([1-9][0-9]*):([0-9a-f]{64})", text.strip().lower())
    if found is None:
        raise UsageError(
            f"{text!r}",
            "is no anchor",
            "Write it as position:hash; verify --json tells both",
        )
    return Head(int(found[1]), found[2])


def _tell(screen: Screen, found: Verification, seconds: float) -> None:
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
    columns = (Column("AT", right=True), Column("WRONG"), Column("WHAT"))
    screen.write_table(columns, rows, headers=False)
    screen.write(_summary(found, seconds))


def _summary(found: Verification, seconds: float) -> str:
    if not found.events and not found.findings:
        return "no events yet, nothing to check"
    whole = (
        "not whole"
        if found.findings
        else f"chain whole from #1 to #{found.head.position}"
    )
    return (
        f"{counted(found.events, 'event')}, {whole}, head {found.head.hash[:8]}…, "
        f"{counted(len(found.findings), 'finding')}, {seconds:.2f} s"
    )


@verb("refresh", LOOK)
async def refresh(invocation: Invocation) -> None:
    """Look at the server now; record what differs, and say it."""
    async with invocation.reading(look=False) as manager:
        before = (await manager.now()).position
        look = await manager.refresh()
        moment = await manager.now()
        view = HistoryView()
        async for event in events_between(manager, before, moment.position):
            view.apply(event)
        recorded = view.entries
        if invocation.json:
            invocation.screen.write_json(
                shapes.Refreshed(
                    node=moment.node_status(),
                    models=len(look.models),
                    runners=len(look.runners),
                    recorded=recorded,
                )
            )
            return
        if recorded:
            show_entries(invocation.screen, recorded, invocation.now, named=True)
        there = f"{counted(len(look.models), 'model')}, {len(look.runners)} in memory"
        news = counted(len(recorded), "new event") if recorded else "nothing new"
        invocation.screen.write(f"Ollama {look.server_version}: {there}; {news}")


@verb("graph", LOOK)
async def graph(invocation: Invocation, model: AnyModel = None) -> None:
    """Draw the states and what leads on from each, in Mermaid.

    With a model: how often it went each way, and where it is.
    """
    transitions, state = None, None
    if model is not None:
        async with invocation.reading(look=False) as manager:
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
