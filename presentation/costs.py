"""Texts about the cost of an operation before it starts."""

from __future__ import annotations

from herdbook.core import DeleteCost, Figure, LoadCost, PullCost
from herdbook.presentation.wording import listed
from herdbook.projections.sentences import bytes_text, counted


def fetch_text(cost: PullCost) -> str:
    """Return the download size of a pull or an update."""
    size = cost.fetch.size_bytes
    if size is None:
        return f"download size {cost.fetch.note}"
    kind = "update" if cost.update else "download"
    return f"{kind} of up to {bytes_text(size)} (catalogue)"


def free_text(free: Figure) -> str:
    """Return the free space on the server's disk; empty if it is not known."""
    if free.size_bytes is None:
        return ""
    return f"{bytes_text(free.size_bytes)} free in {free.note}"


def needed_text(cost: LoadCost) -> str:
    """Return the memory that a load needs."""
    if cost.loaded:
        return "already loaded"
    size = cost.size.size_bytes
    if size is None:
        return f"size unknown: {cost.size.note}"
    return f"needs at least {bytes_text(size)} of memory"


def held_text(cost: LoadCost) -> str:
    """Return the memory that is already in use by runners."""
    if not cost.runners:
        return "nothing else is loaded"
    held = bytes_text(cost.held.size_bytes or 0)
    return f"{counted(cost.runners, 'runner')} loaded, {held} in total"


def freed_text(cost: DeleteCost) -> str:
    """Return the disk space that a deletion frees, as the end of a sentence."""
    if cost.shared_with:
        others = listed(cost.shared_with)
        return f"frees almost no space: same weights as {others}"
    return f"frees {bytes_text(cost.frees.size_bytes or 0)}"
