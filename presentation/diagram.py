"""The state diagram in Mermaid, from the table of the lifecycle."""

from __future__ import annotations

from collections.abc import Mapping

from herdbook.core import ModelState
from herdbook.events.lifecycle import INITIAL, TABLE


def edges() -> dict[tuple[ModelState, ModelState], list[str]]:
    """Return the types of the events between each pair of states."""
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
        counts: Number of transitions by ``from>to``; None to leave out counts.
        state: State to highlight.
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
