"""The state diagram in Mermaid, drawn from the lifecycle's own table."""

from __future__ import annotations

from collections.abc import Mapping

from herdbook.core import ModelState
from herdbook.events.lifecycle import INITIAL, TABLE


def edges() -> dict[tuple[ModelState, ModelState], list[str]]:
    """Return what leads from a state to another: the events' names."""
    found: dict[tuple[ModelState, ModelState], list[str]] = {}
    for row in TABLE:
        for source in row.sources:
            if row.to is not None and row.to is not source:
                found.setdefault((source, row.to), []).append(row.event)
    return found


def mermaid(
    counts: Mapping[str, int] | None = None, state: ModelState | None = None
) -> str:
    """Return the diagram.

    Args:
        counts: By ``from>to``, how often a model went so; None for no counts.
        state: Where it is, to be marked.
    """
    lines = ["stateDiagram-v2", f"    [*] --> {INITIAL.state}"]
    for (source, to), events in edges().items():
        label = ", ".join(events)
        if counts is not None:
            label = f"{counts.get(f'{source}>{to}', 0)} x {label}"
        lines.append(f"    {source} --> {to}: {label}")
    if state is not None:
        lines += ["    classDef here font-weight:bold", f"    class {state} here"]
    return "\n".join(lines)
