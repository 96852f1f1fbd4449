"""The verb ``free``: free disk space on the server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from herdbook.cli.app import CHANGE, verb
from herdbook.cli.errors import DONE, FAILED
from herdbook.cli.invocation import Invocation, failed_refreshes, warn
from herdbook.cli.options import Yes, size_option
from herdbook.cli.output import Column, Piece, Row
from herdbook.core import (
    AmbiguousNodeError,
    Fleet,
    HerdbookError,
    ModelManager,
    OllamaError,
)
from herdbook.core.desired.desired import DesiredSet, read
from herdbook.core.desired.free_space import FreeSpace, Group, free_space
from herdbook.core.fleet.disk_space import node_not_named
from herdbook.presentation import shapes
from herdbook.presentation.wording import NOTHING
from herdbook.projections.sentences import bytes_text, counted

_COLUMNS = (
    Column("MODEL"),
    Column("FREES", right=True),
    Column("LAST USED"),
)


@verb("free", CHANGE)
async def free(
    invocation: Invocation,
    size: Annotated[
        list[str], typer.Argument(metavar="SIZE", help="Space to free, such as 10GB.")
    ],
    *,
    keep: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep the models named in a desired set."),
    ] = None,
    yes: Yes = False,
) -> int:
    """Propose and delete models to free disk space.

    Deletes them after confirmation, or with --yes. The least recently used models go
    first. Models that are pinned, in use or loaded are kept, unless they are loaded
    with no expiry and have not been used for a day. If not enough can be freed, --yes
    deletes nothing. The exit code is 1 if you answer no or not enough can be freed.
    """
    text = " ".join(size)
    wanted = size_option(text)
    desired = read(keep) if keep is not None else None
    async with invocation.acting() as fleet:
        if fleet.is_several:
            raise await _not_named(fleet, text, wanted, desired)
        manager = fleet.home
        await manager.refresh()
        now = await manager.now()
        kept = [now.spelled(each.name) for each in desired.models] if desired else []
        proposal = free_space(now.statuses(), wanted, keep=kept, now=datetime.now(UTC))
        names = [step.name for group in proposal.chosen for step in group.steps]
        if not invocation.json:
            _show(invocation, proposal)
        # With --yes nobody sees that deleting all of them would not be enough.
        agreed = (yes and proposal.is_enough) or (
            not yes
            and invocation.attended
            and bool(names)
            and invocation.agreed(_question(names, proposal))
        )
        deleted, failed = await _deleted(manager, names if agreed else [])
    if invocation.json:
        invocation.screen.write_json(shapes.freed_space(proposal, deleted))
    elif deleted:
        freed = bytes_text(proposal.frees_bytes)
        effect = f"; this frees {freed}" if not failed else ""
        invocation.screen.write(f"{counted(len(deleted), 'model')} deleted{effect}")
    elif names and not agreed and not proposal.is_enough:
        most = _typed(proposal.frees_bytes)
        invocation.screen.write(
            f"Nothing was deleted. To delete these models: herdbook free {most} --yes"
        )
    elif names and not invocation.attended:
        invocation.screen.write(
            "Nothing was deleted. Add --yes to delete these models."
        )
    elif names:
        invocation.screen.write("Nothing was deleted.")
        return FAILED  # as rm and apply do, if the user answers no
    if failed:
        raise failed[0]
    return DONE if proposal.is_enough else FAILED


async def _not_named(
    fleet: Fleet, size: str, wanted: int, desired: DesiredSet | None
) -> AmbiguousNodeError:
    """Return the error that no node was named, with what each of them would free."""
    refreshes = [manager.refresh() for manager in fleet.managers()]
    for result in await asyncio.gather(*refreshes, return_exceptions=True):
        if isinstance(result, BaseException) and not isinstance(result, OllamaError):
            raise result
    for problem in failed_refreshes(fleet):
        warn(problem)
    keep = [each.name for each in desired.models] if desired else []
    error = node_not_named(await fleet.now(), wanted, keep=keep, now=datetime.now(UTC))
    error.subject, error.state = "free", "needs a node"
    named = f"herdbook free {size} --node {error.nodes[0]}"
    error.remedy = f"Choose one: {named}. {error.remedy}"
    return error


async def _deleted(
    manager: ModelManager, names: Sequence[str]
) -> tuple[list[str], list[HerdbookError]]:
    """Delete models until one fails; return those deleted, and the failure."""
    deleted: list[str] = []
    for name in names:
        try:
            await manager.delete(name)
        except HerdbookError as error:
            return deleted, [error]
        deleted.append(name)
    return deleted, []


def _typed(size: int) -> str:
    """Return a size to type, rounded down, so that as much can be freed."""
    return f"{size // 10**6}MB" if size >= 10**6 else f"{size}B"


def _question(names: Sequence[str], proposal: FreeSpace) -> str:
    freed = bytes_text(proposal.frees_bytes)
    models = counted(len(names), "model")
    return f"Delete {models} ({', '.join(names)})? This frees {freed}."


def _show(invocation: Invocation, proposal: FreeSpace) -> None:
    screen = invocation.screen
    if proposal.chosen:
        rows = [_row(invocation, group) for group in proposal.chosen]
        screen.write_table(_COLUMNS, rows)
    freed = bytes_text(proposal.frees_bytes)
    wanted = bytes_text(proposal.wanted_bytes)
    if not proposal.is_enough:
        screen.write(
            f"Only {freed} of {wanted} can be freed. "
            "Models that are pinned or in use are kept."
        )
    else:
        screen.write(f"Frees {freed} (wanted: {wanted})")
    others = [step.name for group in proposal.alternatives for step in group.steps]
    if others:
        screen.write(f"Alternatives: {', '.join(others)}")


def _row(invocation: Invocation, group: Group) -> Row:
    used = group.idle_since or group.last_used_at
    ago = NOTHING if used is None else invocation.now.ago(used)
    return Row(
        [
            Piece(", ".join(step.name for step in group.steps)),
            Piece(bytes_text(group.frees_bytes)),
            Piece(f"{ago}, still loaded" if group.idle_since else ago),
        ]
    )
