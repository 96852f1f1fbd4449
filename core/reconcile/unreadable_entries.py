"""Models and runners that unreadable entries may stand for: they are not absent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from herdbook.core.ollama.entries import MODELS, RUNNERS, UnreadableEntry

if TYPE_CHECKING:
    from herdbook.core.reconcile.server_state import ServerState, WeightsOf
    from herdbook.projections.status import ModelStatus


def may_hide_model(unreadable: Iterable[UnreadableEntry], status: ModelStatus) -> bool:
    """Return whether an unreadable entry may be a model that is not listed.

    Name or digest identify it; an entry without both may be any model.
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
    """Return whether an unreadable entry may be the runner of a model.

    Only the weights of its digest identify it: models of the same weights share a
    runner.
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


def newly_unreadable(
    state: ServerState, previous: ServerState | None
) -> tuple[UnreadableEntry, ...]:
    """Return the unreadable entries that the previous refresh did not have."""
    known = Counter(previous.unreadable if previous else ())
    return tuple((Counter(state.unreadable) - known).elements())
