"""What differs between the server and the register, and what that means.

Pure: a look at the server and the statuses go in, the facts to record come out,
each with its cause. What an instance is at work on is left to that instance.

A runner belongs to every present model of its weights: matched by weights, else by
digest, else by name (a server lists runners, each under the name and digest that
it was first loaded by).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta

import msgspec

from herdbook.core.ollama.entries import RUNNERS, UnreadableEntry
from herdbook.core.reconcile.hiding import may_hide_model, may_hide_runner
from herdbook.core.reconcile.server_state import ListedModel, ServerState, WeightsOf
from herdbook.events.facts import (
    CapabilitiesDetected,
    Fact,
    ModelDiscovered,
    ModelLoaded,
    ModelUnloaded,
    ModelUpdated,
    ModelVanished,
    Runner,
    RunnerChanged,
    UnloadReason,
)
from herdbook.events.lifecycle import Activity, ModelState
from herdbook.events.recorded import Cause
from herdbook.projections.status import ModelStatus

EXPIRY_TOLERANCE = timedelta(seconds=1)
"""How much sooner than announced a runner may be gone and still have expired:
clocks of server and observer differ, and the server removes it at once."""


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """A change that somebody else made.

    Attributes:
        name: The model.
        facts: What to record, in order.
        cause: Why.
        at_version: The version of its stream that this was decided at.
    """

    name: str
    facts: tuple[Fact, ...]
    cause: Cause
    at_version: int


def undetected(
    models: Mapping[str, ListedModel], statuses: Mapping[str, ModelStatus]
) -> list[str]:
    """Return the names of listed models of which there is more to find out.

    That is also where the weights are not known: without them it cannot be told
    which runner is whose, and a server that could not show them once may do later.
    """
    return [
        name
        for name, listed in models.items()
        if not is_detected(listed, statuses.get(name))
        or (statuses[name].weights is None and not listed.remote_host)
    ]


def is_detected(listed: ListedModel, status: ModelStatus | None) -> bool:
    """Return whether it was found out what a listed model can do."""
    return status is not None and status.detected_digest == listed.digest


_CAUSES = {
    UnloadReason.EXPIRED: Cause.EXPIRY,
    UnloadReason.EVICTED: Cause.EVICTION,
    UnloadReason.SERVER_RESTARTED: Cause.RESTART,
}


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A look held against the register.

    Attributes:
        look: What the server shows.
        statuses: What the register says, by name.
        detected: What was found out about undetected models, by name.
        weights_of: Tells the weights of digests, as far as they are known by now.
        restarted: Whether the server is known to have been away since.
        before: The look before this one; None at the first. What its runners tell
            is fresher than the register, and free of what we loaded since.
        asked: Digests of runners that we asked to leave as soon as they are idle.
        newly_odd: Unreadable entries that the look before did not have.
        changed: Models that commands were changing meanwhile: nothing is decided
            about them, though they may be the reason for something else.
    """

    look: ServerState
    statuses: Mapping[str, ModelStatus]
    detected: Mapping[str, CapabilitiesDetected]
    weights_of: WeightsOf
    restarted: bool = False
    before: ServerState | None = None
    asked: frozenset[str] = frozenset()
    newly_odd: tuple[UnreadableEntry, ...] = ()
    changed: Collection[str] = ()

    def names(self) -> list[str]:
        """Return the names of all models to decide about: listed or known."""
        names = self.look.models.keys() | self.statuses.keys()
        return sorted(names.difference(self.changed))

    def drifts(self) -> list[Drift]:
        """Return what to record so that the register says what the server shows."""
        return [drift for name in self.names() for drift in self.drifts_of(name)]

    def drifts_of(self, name: str) -> Iterator[Drift]:
        """Yield what to record of one model."""
        status, listed = self.statuses.get(name), self.look.models.get(name)
        if status is not None and status.lifecycle.activity is not None:
            return  # the instance that is at work on it records how that ends
        version = status.version if status else 0
        presence = self._presence(listed, status)
        if presence:
            yield Drift(
                name=name, facts=presence, cause=Cause.OBSERVED, at_version=version
            )
        if listed is None or listed.remote_host:
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

    def _presence(
        self, listed: ListedModel | None, status: ModelStatus | None
    ) -> tuple[Fact, ...]:
        """Return the facts about whether it is there, and what it is."""
        if listed is None:
            if status is None or not status.present:
                return ()
            beside = self.before is not None and status.name in self.before.models
            hidden = may_hide_model(self._odd(beside=beside), status)
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
        found_out = self.detected.get(listed.name)
        return (*facts, found_out) if found_out else tuple(facts)

    def _memory(
        self, listed: ListedModel, status: ModelStatus | None
    ) -> tuple[Fact, Cause] | None:
        """Return the fact about its runner, with the cause."""
        runner = runner_for(
            listed, self._weights(listed, status), self.look.runners, self.weights_of
        )
        undecided = listed.name in self.look.undecided
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

    def _weights(self, listed: ListedModel, status: ModelStatus | None) -> str | None:
        found_out = self.detected.get(listed.name)
        if found_out is not None:
            return found_out.weights
        known = status is not None and status.digest == listed.digest
        return status.weights if status is not None and known else None

    def _is_hidden(self, status: ModelStatus) -> bool:
        """Return whether its runner may be there, in an entry that cannot be read."""
        beside = status.runner in self._runners_before()
        return may_hide_runner(self._odd(beside=beside), status, self.weights_of)

    def _odd(self, *, beside: bool) -> tuple[UnreadableEntry, ...]:
        """Return the unreadable entries that may be a model or runner not seen now.

        Args:
            beside: Whether it was seen in the look before: what was unreadable
                beside it then is something else.
        """
        return self.newly_odd if beside else self.look.unreadable

    def _unloaded(self, status: ModelStatus) -> tuple[Fact, Cause]:
        """Return that its runner is gone, with the likeliest reason."""
        reason, evicted_by = self._reason(status)
        cause = _CAUSES.get(reason, Cause.OBSERVED)
        if reason is UnloadReason.REQUESTED and status.runner is not None:
            shared = status.runner.name != status.name
            cause = Cause.SHARED if shared else Cause.OBSERVED
        return ModelUnloaded(reason=reason, evicted_by=evicted_by), cause

    def _reason(self, status: ModelStatus) -> tuple[UnloadReason, str | None]:
        gone = status.runner
        if gone is None:
            return UnloadReason.UNKNOWN, None
        if self.restarted:
            return UnloadReason.SERVER_RESTARTED, None
        if any(runner.digest == gone.digest for runner in self.look.runners):
            return UnloadReason.MODEL_REPLACED, None
        if self._expired(gone):  # so does one that was asked to leave
            asked = gone.digest in self.asked
            return UnloadReason.REQUESTED if asked else UnloadReason.EXPIRED, None
        newcomer = self._newcomer()
        if newcomer is not None:
            return UnloadReason.EVICTED, newcomer
        if any(entry.source == RUNNERS for entry in self.look.unreadable):
            return UnloadReason.UNKNOWN, None
        if self._all_gone_at_once():
            return UnloadReason.SERVER_RESTARTED, None
        return UnloadReason.REQUESTED, None

    def _expired(self, gone: Runner) -> bool:
        seen = {runner.digest: runner for runner in self._runners_before()}
        expiry = seen.get(gone.digest, gone).expires_at
        return expiry is not None and expiry <= self.look.at + EXPIRY_TOLERANCE

    def _runners_before(self) -> Sequence[Runner]:
        return self.before.runners if self.before else ()

    def _recorded_runners(self) -> list[Runner]:
        loaded = (status.runner for status in self.statuses.values())
        return [runner for runner in loaded if runner is not None]

    def _newcomer(self) -> str | None:
        """Return who needed the room: a runner that is new, or takes more than before.

        A load evicts before it shows in a runner of its own: one under way counts.
        """
        before = self._runners_before() if self.before else self._recorded_runners()
        sizes = {runner.digest: runner.size_bytes for runner in before}
        new = [one.name for one in self.look.runners if one.digest not in sizes]
        grown = [
            one.name
            for one in self.look.runners
            if one.size_bytes > sizes.get(one.digest, one.size_bytes)
        ]
        loading = [
            status.name
            for status in self.statuses.values()
            if status.activity is Activity.LOAD
        ]
        return next(iter((*new, *grown, *loading)), None)

    def _all_gone_at_once(self) -> bool:
        """Return whether several runners went together: only a restart does that."""
        several = len({runner.digest for runner in self._recorded_runners()}) > 1
        return several and not self.look.runners


def runner_for(
    model: ListedModel | ModelStatus,
    weights: str | None,
    runners: Iterable[Runner],
    weights_of: WeightsOf,
) -> Runner | None:
    """Return the runner that a model is loaded in, if there is one."""
    mine = [one for one in runners if _serves(one, model, weights, weights_of)]
    mine.sort(key=lambda r: (r.digest != model.digest, r.name != model.name))
    return mine[0] if mine else None


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
    """Return whether two looks show the same but for the moving expiry."""
    return msgspec.structs.replace(one, expires_at=None) == msgspec.structs.replace(
        other, expires_at=None
    )


def unowned(
    look: ServerState, weights_by_name: Mapping[str, str | None], weights_of: WeightsOf
) -> list[Runner]:
    """Return the runners that no present model is loaded in: memory of nobody."""
    return [
        runner
        for runner in look.runners
        if not any(
            _serves(runner, listed, weights_by_name.get(name), weights_of)
            for name, listed in look.models.items()
        )
    ]


def _shared_or_observed(listed: ListedModel, runner: Runner) -> Cause:
    return Cause.OBSERVED if runner.name == listed.name else Cause.SHARED
