"""The verb ``graph``: the state diagram, in Mermaid."""

from __future__ import annotations

from herdbook.cli.app import INSPECT, verb
from herdbook.cli.invocation import Invocation
from herdbook.cli.lookup import known_status, node_for
from herdbook.cli.options import AnyModel
from herdbook.presentation import diagram as drawing
from herdbook.presentation import shapes


@verb("graph", INSPECT)
async def graph(invocation: Invocation, model: AnyModel = None) -> None:
    """Print the state diagram of a model as Mermaid text.

    With MODEL, also shows its current state and how often each transition occurred.
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
