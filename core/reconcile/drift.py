"""Drift: the differences between server and log, and the facts to record for them.

Pure: takes the state of the server and the statuses of the models, and returns facts
with their causes. Models with an operation under way are left to the instance that
runs it.

A runner belongs to every present model with the same weights: matched by weights,
else by digest, else by name. (The server lists a runner under the name and digest of
the model that started it.)
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from herdbook.core.ollama.entries import RUNNERS, UnreadableEntry
from herdbook.core.ollama.restart_detection import Continuity
from herdbook.core.reconcile.observed_uses import (
    ObservedUse,
    UseEvidence,
    observed_load,
    observed_use,
)
from herdbook.core.reconcile.server_state import ListedModel, ServerState, WeightsOf
from herdbook.core.reconcile.unreadable_entries import (
    may_be_listed,
    may_hide_model,
    may_hide_runner,
)
from herdbook.events.codec import SCHEMAS
from herdbook.events.facts import (
    CapabilitiesDetected,
    Fact,
    KeepAliveRenewed,
    ModelDiscovered,
    ModelLoaded,
    ModelUnloaded,
    ModelUpdated,
    ModelVanished,
    Runner,
    RunnerChanged,
    UnloadReason,
)
from herdbook.events.lifecycle import LOADS, ModelState
from herdbook.events.recorded import Cause
from herdbook.projections.status import ModelStatus

EXPIRY_TOLERANCE = timedelta(seconds=1)
"""A runner may disappear this much before its announced expiry and still count as
expired: the clocks differ, and the server removes an expired runner at once."""


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """A change to a model that was made outside Herdbook.

    Attributes:
        name: The model.
        facts: The facts to record, in order.
        cause: The cause to record.
        at_version: The version of the model's stream when this was decided.
        occurred_at: When it happened; None for now.
    """

    name: str
    facts: tuple[Fact, ...]
    cause: Cause
    at_version: int
    occurred_at: datetime | None = None


def undetected(
    models: Mapping[str, ListedModel], statuses: Mapping[str, ModelStatus]
) -> list[str]:
    """Return the names of listed models whose details are not completely known.

    Models with unknown weights are included: weights decide which runner is whose,
    and a server that could not report them may do so later. So are models that an
    older version detected.
    """
    return [
        name
        for name, listed in models.items()
        if not is_detected(listed, statuses.get(name))
        or is_outdated(statuses[name])
        or (statuses[name].weights is None and not listed.remote_host)
    ]


def is_detected(listed: ListedModel, status: ModelStatus | None) -> bool:
    """Return whether the capabilities of a listed model are known."""
    return status is not None and status.detected_digest == listed.digest


def is_outdated(status: ModelStatus) -> bool:
    """Return whether an older version, which recorded less, detected a model."""
    return status.detected_schema < SCHEMAS[CapabilitiesDetected.__name__]


_CAUSES = {
    UnloadReason.EXPIRED: Cause.EXPIRY,
    UnloadReason.EVICTED: Cause.EVICTION,
    UnloadReason.SERVER_RESTARTED: Cause.RESTART,
}


_UNEXPLAINED = (UnloadReason.REQUESTED, UnloadReason.UNKNOWN)


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A comparison of the server's state with the log.

    Attributes:
        state: The state of the server.
        statuses: The statuses of the models in the log, by name.
        detected: New facts about undetected models, by name.
        weights_of: Returns the weights of a digest, if they are known.
        restarted: Whether the server was lost or changed its version since.
        moved: Whether the node has had another address until now: then nothing shows
            why a model is no longer loaded.
        continuity: What an idle connection shows about the server's process.
        previous: The state of the previous refresh; None at the first. Its runners
            are newer than the log's, and without those that we loaded since.
        unload_requested: Digests of runners that the server unloads on our request
            once they are idle.
        newly_unreadable: Unreadable entries that the previous refresh did not have.
        changed: Models that commands were changing during the refresh. Nothing is
            decided about them, but they may be the reason for other changes.
        uses: Evidence of uses; None leaves them to another instance.
        changed_by_clients: Models that clients of the gateway loaded or changed.
    """

    state: ServerState
    statuses: Mapping[str, ModelStatus]
    detected: Mapping[str, CapabilitiesDetected]
    weights_of: WeightsOf
    restarted: bool = False
    moved: bool = False
    continuity: Continuity = Continuity.UNKNOWN
    previous: ServerState | None = None
    unload_requested: frozenset[str] = frozenset()
    newly_unreadable: tuple[UnreadableEntry, ...] = ()
    changed: Collection[str] = ()
    uses: UseEvidence | None = None
    changed_by_clients: Collection[str] = ()

    def names(self) -> list[str]:
        """Return the names of all models to compare: listed or in the log."""
        names = self.state.models.keys() | self.statuses.keys()
        return sorted(names.difference(self.changed))

    def drifts_of(self, name: str) -> Iterator[Drift]:
        """Yield the drifts of one model."""
        status, listed = self.statuses.get(name), self.state.models.get(name)
        if status is not None and status.lifecycle.activity is not None:
            return  # the instance that runs the operation records its end
        version = status.version if status else 0
        presence = self._presence(listed, status)
        if presence:
            yield Drift(
                name=name, facts=presence, cause=Cause.OBSERVED, at_version=version
            )
        if listed is None or listed.remote_host or not self.state.reports_runners:
            return
        change = self._memory(listed, status)
        if change is not None:
            fact, cause = change
            yield Drift(
                name=name,
                facts=(fact,),
                cause=cause,
                at_version=version + len(presence),
            )
            after = version + len(presence) + 1
            yield from self._use_of_change(fact, listed, status, after)
        elif status is not None and not presence:
            yield from self._use(listed, status, status.version)

    def _use_of_change(
        self,
        fact: Fact,
        listed: ListedModel,
        status: ModelStatus | None,
        at_version: int,
    ) -> Iterator[Drift]:
        """Yield the use that a load or a reload by another program shows, if any."""
        name = listed.name
        if self.uses is None or name in self.changed_by_clients:
            return
        if isinstance(fact, RunnerChanged) and status is not None:
            yield from self._use(listed, status, at_version)
        elif isinstance(fact, ModelLoaded) and fact.runner.name == name:
            use = observed_load(fact.runner, status, self.uses, self.state.at)
            if use is not None:
                yield _use_drift(name, use.fact, use, at_version)

    def _use(
        self, listed: ListedModel, status: ModelStatus, at_version: int
    ) -> Iterator[Drift]:
        """Yield the use that the expiry of the model's runner shows, if any.

        Models of the same weights share a runner. The use is attributed to the model
        that ``/api/ps`` names; if that was deleted, to the only other one.
        """
        runner = self._runner_of(listed, status)
        if self.uses is None or runner is None or listed.name in self.state.undecided:
            return
        sharing = [
            each
            for each in self.statuses.values()
            if each.runner is not None and each.runner.digest == runner.digest
        ]
        owners = {runner.name} & self.state.models.keys() or {e.name for e in sharing}
        if owners != {status.name} or any(e.name in self.changed for e in sharing):
            return
        use = observed_use(runner, status.name, sharing, self.uses, self.state.at)
        if use is not None:
            clients = not {e.name for e in sharing}.isdisjoint(self.changed_by_clients)
            fact = KeepAliveRenewed(expires_at=use.expires_at) if clients else use.fact
            yield _use_drift(status.name, fact, use, at_version)

    def _presence(
        self, listed: ListedModel | None, status: ModelStatus | None
    ) -> tuple[Fact, ...]:
        """Return the facts about whether the model exists, and its content."""
        if listed is None:
            if status is None or not status.present:
                return ()
            previous = self.previous.models if self.previous else {}
            unreadable = self._unreadable(seen_before=status.name in previous)
            hidden = may_hide_model(unreadable, status)
            return () if hidden else (ModelVanished(),)
        facts: list[Fact] = []
        if status is None or not status.present:
            facts.append(
                ModelDiscovered(
                    digest=listed.digest,
                    size_bytes=listed.size_bytes,
                    remote_host=listed.remote_host,
                )
            )
        elif status.digest != listed.digest:
            if status.updating:
                return ()
            facts.append(
                ModelUpdated(
                    digest=listed.digest,
                    previous_digest=status.digest,
                    size_bytes=listed.size_bytes,
                    remote_host=listed.remote_host,
                )
            )
        detected = self.detected.get(listed.name)
        return (*facts, detected) if detected else tuple(facts)

    def _memory(
        self, listed: ListedModel, status: ModelStatus | None
    ) -> tuple[Fact, Cause] | None:
        """Return the fact about the model's runner, with its cause."""
        runner = self._runner_of(listed, status)
        undecided = listed.name in self.state.undecided
        if undecided and (runner is None or runner.digest != listed.digest):
            return None
        if status is None or status.state is not ModelState.LOADED:
            if runner is None:
                return None
            return ModelLoaded(runner=runner), _shared_or_observed(listed, runner)
        if runner is None:
            return None if self._is_hidden(status) else self._unloaded(status)
        if status.runner is None or not same_runner(status.runner, runner):
            return RunnerChanged(runner=runner), Cause.OBSERVED
        return None

    def _runner_of(
        self, listed: ListedModel, status: ModelStatus | None
    ) -> Runner | None:
        weights = self._weights(listed, status)
        return runner_for(listed, weights, self.state.runners, self.weights_of)

    def _weights(self, listed: ListedModel, status: ModelStatus | None) -> str | None:
        detected = self.detected.get(listed.name)
        if detected is not None:
            return detected.weights
        known = status is not None and status.digest == listed.digest
        return status.weights if status is not None and known else None

    def _is_hidden(self, status: ModelStatus) -> bool:
        """Return whether an unreadable entry may be the model's runner."""
        seen_before = status.runner in self._previous_runners()
        unreadable = self._unreadable(seen_before=seen_before)
        return may_hide_runner(unreadable, status, self.weights_of)

    def _unreadable(self, *, seen_before: bool) -> tuple[UnreadableEntry, ...]:
        """Return the unreadable entries that may be a missing model or runner.

        Args:
            seen_before: Whether the previous refresh saw it: entries that were
                unreadable at the same time are something else.
        """
        return self.newly_unreadable if seen_before else self.state.unreadable

    def _unloaded(self, status: ModelStatus) -> tuple[Fact, Cause]:
        """Return the unload of a model, with the most likely reason."""
        reason, evicted_by = self._reason(status)
        cause = _CAUSES.get(reason, Cause.OBSERVED)
        if reason is UnloadReason.REQUESTED and status.runner is not None:
            shared = status.runner.name != status.name
            cause = Cause.SHARED if shared else Cause.OBSERVED
        return ModelUnloaded(reason=reason, evicted_by=evicted_by), cause

    def _reason(self, status: ModelStatus) -> tuple[UnloadReason, str | None]:
        gone = status.runner
        if self.moved or gone is None:
            return UnloadReason.UNKNOWN, None
        if self.restarted:
            return UnloadReason.SERVER_RESTARTED, None
        if any(runner.digest == gone.digest for runner in self.state.runners):
            return UnloadReason.MODEL_REPLACED, None
        if self._expired(gone):  # a deferred unload ends the keep-alive too
            requested = gone.digest in self.unload_requested
            return UnloadReason.REQUESTED if requested else UnloadReason.EXPIRED, None
        newcomer = self._newcomer()
        if newcomer is not None:
            return UnloadReason.EVICTED, newcomer
        if any(entry.source == RUNNERS for entry in self.state.unreadable):
            return UnloadReason.UNKNOWN, None
        if self._shows_restart():
            return UnloadReason.SERVER_RESTARTED, None
        # Without evidence that the same process runs, a restart cannot be excluded.
        same = self.continuity is Continuity.SAME
        requested = same and not self._may_be_reloading(gone)
        return UnloadReason.REQUESTED if requested else UnloadReason.UNKNOWN, None

    def _may_be_reloading(self, gone: Runner) -> bool:
        """Return whether a request of the gateway may load the weights again.

        A server unloads a model to load it with other options.
        """
        return self.uses is not None and any(
            each.runner is not None
            and each.runner.digest == gone.digest
            and each.name in self.uses.reloading
            for each in self.statuses.values()
        )

    def _expired(self, gone: Runner) -> bool:
        seen = {runner.digest: runner for runner in self._previous_runners()}
        expiry = seen.get(gone.digest, gone).expires_at
        return expiry is not None and expiry <= self.state.at + EXPIRY_TOLERANCE

    def _previous_runners(self) -> Sequence[Runner]:
        return self.previous.runners if self.previous else ()

    def _recorded_runners(self) -> list[Runner]:
        loaded = (status.runner for status in self.statuses.values())
        return [runner for runner in loaded if runner is not None]

    def _newcomer(self) -> str | None:
        """Return the model that needed memory: its runner is new, or has grown.

        A load evicts others before its own runner is listed: one under way counts.
        """
        seen = self.previous is not None
        runners = self._previous_runners() if seen else self._recorded_runners()
        sizes = {runner.digest: runner.size_bytes for runner in runners}
        new = [one.name for one in self.state.runners if one.digest not in sizes]
        grown = [
            one.name
            for one in self.state.runners
            if one.size_bytes > sizes.get(one.digest, one.size_bytes)
        ]
        loading = [
            status.name
            for status in self.statuses.values()
            if status.lifecycle.activity in LOADS
        ]
        return next(iter((*new, *grown, *loading)), None)

    def unexplained(self) -> frozenset[str]:
        """Return the models whose runner is gone for no reason that shows yet.

        The server lists a new runner only when its load ends, so until then an
        eviction or a reload looks like an unload on request.
        """
        if self.moved or not self.state.reports_runners:
            return frozenset()
        listed = {runner.digest for runner in self.state.runners}
        return frozenset(
            status.name
            for status in self.statuses.values()
            if status.state is ModelState.LOADED
            and status.lifecycle.activity is None
            and status.name in self.state.models
            and status.name not in self.changed_by_clients
            and status.runner is not None
            and status.runner.digest not in listed | self.unload_requested
            and self._reason(status)[0] in _UNEXPLAINED
        )

    def lost_all_runners(self) -> bool:
        """Return whether there were runners, and none of them is left."""
        before = {runner.digest for runner in self._recorded_runners()}
        return bool(before) and not before & {r.digest for r in self.state.runners}

    def _shows_restart(self) -> bool:
        """Return whether the missing runners are best explained by a restart.

        The server closed an idle connection; or several runners ended together, which
        requests of clients rarely do, while nothing shows that the process is the same.
        """
        if self.state.runners or self.continuity is Continuity.SAME:
            return False
        several = len({runner.digest for runner in self._recorded_runners()}) > 1
        return several or self.continuity is Continuity.CLOSED


def _use_drift(name: str, fact: Fact, use: ObservedUse, at_version: int) -> Drift:
    return Drift(
        name=name,
        facts=(fact,),
        cause=Cause.OBSERVED,
        at_version=at_version,
        occurred_at=use.ended_at,
    )


def runner_for(
    model: ListedModel | ModelStatus,
    weights: str | None,
    runners: Iterable[Runner],
    weights_of: WeightsOf,
) -> Runner | None:
    """Return the runner that a model is loaded in, if there is one."""
    own = [one for one in runners if _serves(one, model, weights, weights_of)]
    own.sort(key=lambda r: (r.digest != model.digest, r.name != model.name))
    return own[0] if own else None


def _serves(
    runner: Runner,
    model: ListedModel | ModelStatus,
    weights: str | None,
    weights_of: WeightsOf,
) -> bool:
    if runner.digest == model.digest:
        return True
    runner_weights = weights_of(runner.digest)
    if runner_weights is not None:
        return runner_weights == weights
    return runner.name == model.name


def same_runner(one: Runner, other: Runner) -> bool:
    """Return whether two runners are equal, apart from their expiry."""
    return msgspec.structs.replace(one, expires_at=None) == msgspec.structs.replace(
        other, expires_at=None
    )


def orphaned(
    state: ServerState, weights_by_name: Mapping[str, str | None], weights_of: WeightsOf
) -> list[Runner]:
    """Return the orphaned runners: no present model is loaded in them."""
    return [
        runner
        for runner in state.runners
        if not may_be_listed(state.unreadable, runner)
        and not any(
            _serves(runner, listed, weights_by_name.get(name), weights_of)
            for name, listed in state.models.items()
        )
    ]


def _shared_or_observed(listed: ListedModel, runner: Runner) -> Cause:
    return Cause.OBSERVED if runner.name == listed.name else Cause.SHARED
