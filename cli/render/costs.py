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
        invocation.screen.write(line_of(cost))
    elif alone:
        invocation.screen.write_json(cost, in_lines=in_lines)


def line_of(cost: PullCost | LoadCost) -> str:
    """Return a cost in one line."""
    if isinstance(cost, PullCost):
        return f"{cost.name}: {fetch_text(cost)}; {free_text(cost.free)}"
    return f"{cost.name}: {needed_text(cost)}; {held_text(cost)}"
