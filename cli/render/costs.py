"""The cost of a pull or load, in one line before it starts."""

from __future__ import annotations

from herdbook.cli.invocation import Invocation
from herdbook.core import LoadCost, PullCost
from herdbook.presentation.costs import (
    fetch_text,
    free_text,
    freed_text,
    held_text,
    needed_text,
)

__all__ = ["freed_text", "line_of", "write"]


def write(
    invocation: Invocation,
    cost: PullCost | LoadCost,
    *,
    alone: bool,
    in_lines: bool = False,
) -> None:
    """Write a cost; in JSON only if it is the whole answer.

    Args:
        invocation: The call.
        cost: The cost.
        alone: Whether the cost is the whole answer (``--dry-run``).
        in_lines: Whether to write one JSON line per model.
    """
    if not invocation.json:
        if (line := line_of(cost, alone=alone)) is not None:
            invocation.screen.write(line)
    elif alone:
        invocation.screen.write_json(cost, in_lines=in_lines)


def line_of(cost: PullCost | LoadCost, *, alone: bool) -> str | None:
    """Return a cost in one line; None if nothing of it is known.

    Args:
        cost: The cost.
        alone: Whether the cost is the whole answer; then it also says that the size of
            a download is unknown.
    """
    if isinstance(cost, PullCost):
        fetch = fetch_text(cost) if alone or cost.fetch.size_bytes is not None else ""
        parts = [part for part in (fetch, free_text(cost.free)) if part]
        return f"{cost.name}: {'; '.join(parts)}" if parts else None
    return f"{cost.name}: {needed_text(cost)}; {held_text(cost)}"
