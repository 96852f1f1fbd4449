"""What something will cost, or give back, in a few words before it begins."""

from __future__ import annotations

from herdbook.core import DeleteCost, Figure, LoadCost, PullCost
from herdbook.presentation.wording import counted
from herdbook.projections.sentences import bytes_text


def fetch_text(cost: PullCost) -> str:
    """Return what a pull or an update fetches."""
    size = cost.fetch.size_bytes
    if size is None:
        return f"size unknown ({cost.fetch.note})"
    what = "an update, at most" if cost.update else "at most"
    return f"{what} {bytes_text(size)} to fetch (catalogue)"


def free_text(free: Figure) -> str:
    """Return what is free on the server's disk."""
    if free.size_bytes is None:
        return f"free disk unknown ({free.note})"
    return f"{bytes_text(free.size_bytes)} free in {free.note}"


def needed_text(cost: LoadCost) -> str:
    """Return the memory that a load needs."""
    if cost.loaded:
        return "in memory already"
    size = cost.size.size_bytes
    if size is None:
        return f"size unknown ({cost.size.note})"
    return f"at least {bytes_text(size)} of memory"


def held_text(cost: LoadCost) -> str:
    """Return the memory that is held already."""
    if not cost.runners:
        return "no runner holds any"
    held = bytes_text(cost.held.size_bytes or 0)
    return f"{counted(cost.runners, 'runner')} in memory, {held} in all"


def freed_text(cost: DeleteCost) -> str:
    """Return what a deletion gives back, as the end of a sentence."""
    if cost.shared_with:
        others = ", ".join(cost.shared_with)
        return f"frees next to nothing: {others} has the same weights"
    return f"frees {bytes_text(cost.frees.size_bytes or 0)}"
