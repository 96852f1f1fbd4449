"""What a verb will cost, or give back, in one line before it begins."""

from __future__ import annotations

from herdbook.cli.invocation import Invocation
from herdbook.core import DeleteCost, Figure, LoadCost, PullCost
from herdbook.presentation.wording import counted
from herdbook.projections.sentences import bytes_text


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
        return f"{cost.name}: {_fetch_text(cost)}; {_free_text(cost.free)}"
    return f"{cost.name}: {_needed_text(cost)}; {_held_text(cost)}"


def freed_text(cost: DeleteCost) -> str:
    """Return what a deletion gives back, as the end of a sentence."""
    if cost.shared_with:
        others = ", ".join(cost.shared_with)
        return f"frees next to nothing: {others} has the same weights"
    return f"frees {bytes_text(cost.frees.size_bytes or 0)}"


def _fetch_text(cost: PullCost) -> str:
    size = cost.fetch.size_bytes
    if size is None:
        return f"size unknown ({cost.fetch.note})"
    what = "an update, at most" if cost.update else "at most"
    return f"{what} {bytes_text(size)} to fetch (catalogue)"


def _free_text(free: Figure) -> str:
    if free.size_bytes is None:
        return f"free disk unknown ({free.note})"
    return f"{bytes_text(free.size_bytes)} free in {free.note}"


def _needed_text(cost: LoadCost) -> str:
    if cost.loaded:
        return "in memory already"
    size = cost.size.size_bytes
    if size is None:
        return f"size unknown ({cost.size.note})"
    return f"at least {bytes_text(size)} of memory"


def _held_text(cost: LoadCost) -> str:
    if not cost.runners:
        return "no runner holds any"
    held = bytes_text(cost.held.size_bytes or 0)
    return f"{counted(cost.runners, 'runner')} in memory, {held} in all"
