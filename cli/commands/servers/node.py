"""The verb ``node``: show the server, or record its new address."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from herdbook.cli.app import INSPECT, verb
from herdbook.cli.errors import DONE, FAILED, UsageError
from herdbook.cli.invocation import Invocation
from herdbook.core.ollama.address import same_server
from herdbook.presentation import shapes


class Action(StrEnum):
    """What to do with the node."""

    MOVE = "move"


@verb("node", INSPECT)
async def node(
    invocation: Invocation,
    *,
    action: Annotated[
        Action | None,
        typer.Argument(
            metavar="[move]", help="Record that the server has a new address."
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask for confirmation.")
    ] = False,
) -> int:
    """Show the server: its address, version and whether it answers.

    `node move` records that the server is now at --ollama or OLLAMA_HOST. Until then
    Herdbook refuses any address other than the recorded one, because another server
    may have other models.
    """
    async with invocation.reading(refresh=False) as manager:
        before = await manager.node_status()
        new = before.url and not same_server(before.url, invocation.url)
        moved = False
        if action is Action.MOVE and new:
            if not yes and not invocation.attended:
                raise UsageError("node move", "needs confirmation", "Add --yes")
            question = f"Move {before.name} from {before.url} to {invocation.url}?"
            if not yes and not invocation.agreed(question):
                return FAILED
            moved = await manager.move_node()
        status = await manager.node_status()
    if invocation.json:
        invocation.screen.write_json(shapes.Node(node=status, moved=moved))
        return DONE
    if action is Action.MOVE:
        known = status.url or "not known yet; the next refresh records it"
        moves = f"moved to {status.url}" if moved else f"not moved: already {known}"
        invocation.screen.write(f"{status.name}: {moves}")
        return DONE
    invocation.screen.write(f"Node     {status.name}")
    invocation.screen.write(f"Address  {status.url or 'not known yet'}")
    invocation.screen.write(f"Version  {status.server_version or 'not known yet'}")
    since = ""
    if status.since is not None:
        since = f" since {status.since.astimezone():%Y-%m-%d %H:%M}"
    reached = "reached" if status.reached else status.message or "not reached"
    invocation.screen.write(f"State    {reached}{since}")
    return DONE
