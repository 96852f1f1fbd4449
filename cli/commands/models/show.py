"""The verb ``show``: one model, with the source of each detail."""

from __future__ import annotations

from herdbook.cli.app import INSPECT, verb
from herdbook.cli.invocation import Invocation
from herdbook.cli.lookup import known_status, node_for
from herdbook.cli.options import Model, NoRefresh
from herdbook.cli.render.model_card import Card
from herdbook.presentation import shapes


@verb("show", INSPECT)
async def show(
    invocation: Invocation, model: Model, *, no_refresh: NoRefresh = False
) -> None:
    """Show a model's details, settings and use."""
    async with invocation.reading(refresh=not no_refresh) as fleet:
        manager = await node_for(invocation, fleet, model)
        models = await manager.now()
        status = known_status(models, model)
        if invocation.json:
            invocation.screen.write_json(shapes.model(status, models))
            return
        entries = (await manager.available_history(status.name)).entries
        shown = Card(status, models, entries, invocation.now)
        invocation.screen.write_lines(shown.lines())
