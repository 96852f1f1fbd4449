"""Models and runners that unreadable entries may stand for: they are not absent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

from herdbook.core.ollama.entries import MODELS, RUNNERS, UnreadableEntry

if TYPE_CHECKING:
    from herdbook.core.reconcile.server_state import ServerState, WeightsOf
    from herdbook.events.facts import Runner
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


def may_be_listed(unreadable: Iterable[UnreadableEntry], runner: Runner) -> bool:
    """Return whether an unreadable entry may be the model of a runner."""
    return any(
        entry.source == MODELS
        and (
            entry.model == runner.name
            or entry.digest == runner.digest
            or (entry.model is None and entry.digest is None)
        )
        for entry in unreadable
    )


def with_known_digests(
    state: ServerState, statuses: Mapping[str, ModelStatus]
) -> ServerState:
    """Give models that are listed several times the digest that is in use.

    That is the digest in the log, so that no update is recorded that did not happen;
    for a model that is not in the log, the digest of its runner.
    """
    models = dict(state.models)
    loaded = {runner.digest for runner in state.runners}
    for entry in state.unreadable:
        name, digest = entry.model, entry.digest
        if entry.source != MODELS or name not in models or digest is None:
            continue
        status = statuses.get(name)
        known = status.digest if status is not None and status.present else None
        if digest == known or (known is None and digest in loaded):
            models[name] = msgspec.structs.replace(models[name], digest=digest)
    return msgspec.structs.replace(state, models=models)


def newly_unreadable(
    state: ServerState, previous: ServerState | None
) -> tuple[UnreadableEntry, ...]:
    """Return the unreadable entries that the previous refresh did not have."""
    known = Counter(previous.unreadable if previous else ())
    return tuple((Counter(state.unreadable) - known).elements())
