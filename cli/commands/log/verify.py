"""The verb ``verify``: check every event of the log."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from herdbook.cli.app import HISTORY, verb
from herdbook.cli.commands.log.proof import read_anchors, read_keys
from herdbook.cli.errors import DONE, FAILED, UsageError
from herdbook.cli.invocation import Invocation
from herdbook.cli.lookup import check_log
from herdbook.cli.output import Column, Piece, Row, Screen
from herdbook.core import (
    CorruptLogError,
    Storage,
    SystemClock,
    Verification,
)
from herdbook.core.archives.signature import check_signatures
from herdbook.core.checks.verification import verify as check
from herdbook.core.proof.proof import check_anchors
from herdbook.events.errors import VERIFY_OR
from herdbook.events.findings import Kind
from herdbook.events.store import Head
from herdbook.presentation import shapes
from herdbook.projections.sentences import counted


@verb("verify", HISTORY)
async def verify(
    invocation: Invocation,
    *,
    anchor: Annotated[
        list[str] | None,
        typer.Option(
            metavar="POSITION:HASH",
            help="Check that the log still has this hash at this position. Repeatable.",
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
            help="Trusted public key; every anchor and archive must be signed with one "
            "of them. Repeatable.",
        ),
    ] = None,
    accept: Annotated[
        bool,
        typer.Option(
            "--accept",
            help="Accept the loss of recorded events and continue without them.",
        ),
    ] = False,
) -> int:
    """Check every event in the log.

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
    opening = Storage.open(log, SystemClock(), accept_loss=accept, reading=not accept)
    async with _advised(opening) as storage:
        found = await check(storage, anchors=heads)
        more = [
            *await check_anchors(storage, made, public),
            *await check_signatures(storage, public),
        ]
        found = msgspec.structs.replace(found, findings=(*found.findings, *more))
    seconds = time.perf_counter() - began
    if invocation.json:
        invocation.screen.write_json(
            shapes.Verified(
                events=found.events,
                position=found.head.position,
                hash=found.head.hash,
                findings=found.findings,
                omitted=found.omitted,
                missing=found.missing,
                anchors=len(heads) + len(made),
                signatures_checked=bool(public),
                seconds=round(seconds, 3),
            )
        )
    else:
        _write_findings(invocation.screen, found, seconds)
        if heads or made:
            positions = [each.position for each in heads]
            positions += [each.position for each in made]
            invocation.screen.write(_anchors_text(positions, found))
        if made and not public:
            invocation.screen.write(
                "Signatures were not checked: name the trusted keys with --key."
            )
    return FAILED if found.findings else DONE


@asynccontextmanager
async def _advised(
    opening: AbstractAsyncContextManager[Storage],
) -> AsyncIterator[Storage]:
    """Open a log; the error of one that cannot be read does not advise to run this."""
    try:
        async with opening as storage:
            yield storage
    except CorruptLogError as error:
        if error.remedy.startswith(VERIFY_OR):
            other = error.remedy.removeprefix(VERIFY_OR)
            error.remedy = other[0].upper() + other[1:]
        raise


def _anchor(text: str) -> Head:
    found = re.fullmatch(r"#?([1-9][0-9]{0,17}):([0-9a-f]{64})", text.strip().lower())
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
    if found.omitted:
        screen.write(f"and {counted(found.omitted, 'more finding')}, not listed")
    if found.missing:
        screen.write(f"not verified: {found.missing}")
    screen.write(_summary(found, seconds))


def _anchors_text(positions: Sequence[int], found: Verification) -> str:
    """Return the result of comparing anchors: ``2 anchors match, up to #21``."""
    count = counted(len(positions), "anchor")
    if found.findings:  # an altered event may still have the hash that was anchored
        return f"{count} checked; see the findings above"
    match = "matches" if len(positions) == 1 else "match"
    return f"{count} {match}, up to #{max(positions)}"


def _summary(found: Verification, seconds: float) -> str:
    if not found.events and not found.findings:
        return "no events yet"
    condition = f"chain intact from #1 to #{found.head.position}"
    if found.findings and all(each.kind is Kind.ANCHOR for each in found.findings):
        condition += ", but not confirmed by every anchor"
    elif found.findings:
        condition = "damaged"
    elif found.missing:
        condition = "chain intact except in missing archives"
    return (
        f"{counted(found.events, 'event')}, {condition}, head {found.head.hash[:8]}…, "
        f"{counted(len(found.findings) + found.omitted, 'finding')}, {seconds:.2f} s"
    )
