"""On which of several nodes disk space is to be freed: the user decides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from herdbook.core.desired.free_space import FreeSpace, free_space
from herdbook.core.errors import AmbiguousNodeError
from herdbook.core.history.read_model import ReadModel
from herdbook.projections.sentences import bytes_text, counted

LISTED: Final = 10
"""Nodes that the error lists; those where enough can be freed come first."""


def node_not_named(
    read_models: Sequence[ReadModel],
    wanted_bytes: int,
    *,
    keep: Iterable[str] = (),
    now: datetime,
) -> AmbiguousNodeError:
    """Return the error of a request to free disk space that names none of the nodes.

    Disks belong to nodes, and space on one helps no other. The error says what would be
    freed on each.

    Args:
        read_models: The read models of the nodes.
        wanted_bytes: The disk space that is wanted, bytes.
        keep: Models to keep.
        now: The time, from which it follows which models are not used any more.
    """
    names, lines = tuple(keep), []
    for one in read_models:
        kept = [one.spelled(name) for name in names]
        proposal = free_space(one.statuses(), wanted_bytes, keep=kept, now=now)
        reached = one.node_status().reached
        enough = reached and proposal.is_enough
        lines.append((not enough, one.node, _effect(proposal, reached=reached)))
    lines.sort()
    listed = [f"{node} {effect}" for _, node, effect in lines[:LISTED]]
    if len(lines) > LISTED:
        listed.append(f"and {len(lines) - LISTED} more")
    error = AmbiguousNodeError("", tuple(node for _, node, _ in lines))
    error.remedy = f"Nodes: {'; '.join(listed)}"
    return error


def _effect(proposal: FreeSpace, *, reached: bool) -> str:
    """Return what the proposal of a node would free, in words."""
    if not reached:
        return "(does not answer)"
    models = sum(len(group.steps) for group in proposal.chosen)
    if not models:
        return "(nothing can be freed)"
    freed = bytes_text(proposal.frees_bytes)
    if not proposal.is_enough:
        return f"(only {freed} can be freed)"
    return f"(frees {freed}, {counted(models, 'model')})"
