"""What unreadable entries of a list may hide: nothing is concluded from its absence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from herdbook.core.ollama.entries import MODELS, RUNNERS, UnreadableEntry

if TYPE_CHECKING:
    from herdbook.core.reconcile.server_state import ServerState, WeightsOf
    from herdbook.projections.status import ModelStatus


def may_hide_model(unreadable: Iterable[UnreadableEntry], status: ModelStatus) -> bool:
    """Return whether a model that is not listed may be in an unreadable entry.

    A name or a digest tells it; an entry without either may be any model's.
    """
    for entry in unreadable:
        if entry.source != MODELS:
            continue
        if entry.model is None and entry.digest is None:
            return True
        if entry.model == status.name or entry.digest in {status.digest} - {None}:
            return True
    return False


def may_hide_runner(
    unreadable: Iterable[UnreadableEntry], status: ModelStatus, weights_of: WeightsOf
) -> bool:
    """Return whether the runner of a model may be in an unreadable entry.

    Only a digest tells, through the weights: names of one file share their runner.
    """
    own = {status.digest, status.runner.digest if status.runner else None}
    for entry in unreadable:
        if entry.source != RUNNERS:
            continue
        if entry.digest is None or entry.digest in own or status.weights is None:
            return True
        if weights_of(entry.digest) in {None, status.weights}:
            return True
    return False


def newly_odd(
    look: ServerState, before: ServerState | None
) -> tuple[UnreadableEntry, ...]:
    """Return the unreadable entries that the look before did not have."""
    known = Counter(before.unreadable if before else ())
    return tuple((Counter(look.unreadable) - known).elements())
