"""The verb ``use``: record that a model was used."""

from __future__ import annotations

from typing import Annotated

import typer

from herdbook.cli.app import CHANGE, verb
from herdbook.cli.commands.models.load import write_status
from herdbook.cli.completion import complete_role
from herdbook.cli.invocation import Invocation
from herdbook.cli.lookup import find_present, node_for
from herdbook.cli.options import Model
from herdbook.core import (
    ModelRole,
)


@verb("use", CHANGE)
async def use(
    invocation: Invocation,
    model: Model,
    *,
    purpose: Annotated[
        str, typer.Option("--for", metavar="PURPOSE", help="Purpose, as free text.")
    ] = "",
    role: Annotated[
        str | None,
        typer.Option(
            metavar="ROLE",
            help=f"Role it was used for: {', '.join(ModelRole)}.",
            autocompletion=complete_role,
        ),
    ] = None,
) -> None:
    """Record that a model was used.

    Recently used models are recommended first.
    """
    async with invocation.reading() as fleet:
        manager = await node_for(invocation, fleet, model)
        await find_present(manager, model)
        status = await manager.mark_used(model, purpose=purpose, role=role)
        why = f": {purpose}" if purpose else ""
        await write_status(invocation, manager, status, f"{status.name} used{why}")
