"""What a verb will cost, or give back, in one line before it begins."""

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

__all__ = ["freed_text", "line_of", "tell"]


def tell(invocation: Invocation, cost: PullCost | LoadCost, *, alone: bool) -> None:
    """Tell what something will cost; in JSON only where nothing else is told.

    Args:
        invocation: The call.
        cost: What is told.
        alone: Whether it is all that is asked for.
    """
    if not invocation.json:
        invocation.screen.write(line_of(cost))
    elif alone:
        invocation.screen.write_json(cost)


def line_of(cost: PullCost | LoadCost) -> str:
    """Return a cost in one line."""
    if isinstance(cost, PullCost):
        return f"{cost.name}: {fetch_text(cost)}; {free_text(cost.free)}"
    return f"{cost.name}: {needed_text(cost)}; {held_text(cost)}"
