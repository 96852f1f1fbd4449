"""What the data of each event change in the status of its model."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import msgspec

from herdbook.events import facts
from herdbook.events.facts import Fact, UnloadReason
from herdbook.events.lifecycle import Activity, ModelState
from herdbook.events.recorded import RecordedEvent
from herdbook.projections.status import (
    Failure,
    KeepAlive,
    Load,
    ModelStatus,
    Why,
    Work,
)

CONFIRMED_WITHIN_S = 1.0
"""Seconds from the end of a load at the server until Herdbook has recorded it."""

_REASONS: Final = {reason: reason.value for reason in UnloadReason}
"""Faster than the property ``value``, which is written in Python."""


def clear_contradictions(model: ModelStatus) -> None:
    """Clear fields that contradict the lifecycle, after an illegal event."""
    if not model.present:
        model.digest = model.size_bytes = model.remote_host = None
        model.weights = model.detected_digest = None
    if model.state is not ModelState.LOADED:
        model.runner = model.keep_alive = None
    if model.lifecycle.activity is None:
        model.work = None
    if not model.updating:
        model.update = None


def _arrived(
    model: ModelStatus,
    _: RecordedEvent,
    fact: facts.ModelDiscovered | facts.PullCompleted | facts.ModelUpdated,
) -> None:
    model.digest, model.size_bytes = fact.digest, fact.size_bytes
    model.remote_host, model.last_failure = fact.remote_host, None
    if fact.digest != model.detected_digest:
        model.weights = None
    if model.lifecycle.activity is None:
        model.work = None
    if not model.lifecycle.updating:
        model.update = None


def _removed(model: ModelStatus, _: RecordedEvent, __: Fact) -> None:
    model.digest = model.size_bytes = model.remote_host = None
    model.weights = model.detected_digest = None  # detect again if it returns
    model.runner = model.keep_alive = None
    model.work = model.update = model.last_failure = None


def _work(
    activity: Activity,
    event: RecordedEvent,
    fact: facts.PullStarted
    | facts.UpdateStarted
    | facts.LoadStarted
    | facts.ReloadStarted,
    *,
    insecure: bool = False,
) -> Work:
    return Work(
        activity,
        fact.instance,
        event.occurred_at,
        event.actor,
        insecure=insecure,
        operation=event.correlation_id,
    )


def _pull_started(
    model: ModelStatus, event: RecordedEvent, fact: facts.PullStarted
) -> None:
    model.work = _work(Activity.PULL, event, fact, insecure=fact.insecure)


def _load_started(
    model: ModelStatus, event: RecordedEvent, fact: facts.LoadStarted
) -> None:
    model.work = _work(Activity.LOAD, event, fact)


def _reload_started(
    model: ModelStatus, event: RecordedEvent, fact: facts.ReloadStarted
) -> None:
    model.work = _work(Activity.RELOAD, event, fact)


def _update_started(
    model: ModelStatus, event: RecordedEvent, fact: facts.UpdateStarted
) -> None:
    model.update = _work(Activity.UPDATE, event, fact, insecure=fact.insecure)


def _progressed(
    model: ModelStatus,
    _: RecordedEvent,
    fact: facts.PullProgressed | facts.UpdateProgressed,
) -> None:
    progress = {
        "completed_bytes": fact.completed_bytes,
        "total_bytes": fact.total_bytes,
    }
    if model.update is not None:
        model.update = msgspec.structs.replace(model.update, **progress)
    elif model.work is not None:
        model.work = msgspec.structs.replace(model.work, **progress)


def _cancel_requested(
    model: ModelStatus, event: RecordedEvent, fact: facts.CancelRequested
) -> None:
    if model.update is not None and fact.activity == Activity.UPDATE.value:
        model.update = msgspec.structs.replace(model.update, cancelled_by=event.actor)
    elif model.work is not None and fact.activity == model.work.activity:
        model.work = msgspec.structs.replace(model.work, cancelled_by=event.actor)


def _work_ended(model: ModelStatus, _: RecordedEvent, __: Fact) -> None:
    model.work = None


def _update_ended(model: ModelStatus, _: RecordedEvent, __: Fact) -> None:
    model.update = None


def _failed(
    model: ModelStatus,
    event: RecordedEvent,
    fact: facts.PullFailed | facts.UpdateFailed | facts.LoadFailed | facts.ReloadFailed,
) -> None:
    if isinstance(fact, facts.UpdateFailed):
        model.update = None
    else:
        model.work = None
    model.last_failure = Failure(event.type, fact.kind, fact.message, event.occurred_at)


def _loaded(
    model: ModelStatus,
    event: RecordedEvent,
    fact: facts.ModelLoaded | facts.ReloadCompleted,
) -> None:
    model.runner = fact.runner
    model.reloaded = None if type(fact) is facts.ModelLoaded else _load(event)
    model.keep_alive = model.work = model.last_failure = None
    if fact.duration_s is not None and fact.runner.expires_at is not None:
        _learn_keep_alive(model, event.occurred_at, CONFIRMED_WITHIN_S)


def _load(event: RecordedEvent) -> Load:
    return Load(event.occurred_at, event.cause, event.actor, event.position)


def _not_reloaded(
    model: ModelStatus, event: RecordedEvent, fact: facts.ReloadUnchanged
) -> None:
    model.work = model.last_failure = None
    if fact.expires_at is not None:
        _extend(model, event, fact.expires_at)


def _runner_changed(
    model: ModelStatus, event: RecordedEvent, fact: facts.RunnerChanged
) -> None:
    model.runner, model.reloaded, model.keep_alive = fact.runner, _load(event), None


def _renewed(
    model: ModelStatus, event: RecordedEvent, fact: facts.KeepAliveRenewed
) -> None:
    failure = model.last_failure
    if failure is not None and failure.event == facts.ReloadFailed.__name__:
        model.last_failure = None  # a load has succeeded since
    _extend(model, event, fact.expires_at)


def _extend(model: ModelStatus, event: RecordedEvent, expires_at: datetime) -> None:
    """Note that the server has changed when the keep-alive of a model ends."""
    if model.runner is not None:
        model.runner = msgspec.structs.replace(model.runner, expires_at=expires_at)
        _learn_keep_alive(model, event.occurred_at, CONFIRMED_WITHIN_S)


def _learn_keep_alive(model: ModelStatus, at: datetime, within_s: float) -> None:
    """Derive the keep-alive of a runner from the end of its last request.

    Args:
        model: The model; its runner has the expiry that the request led to.
        at: The latest time at which the request may have ended.
        within_s: How much earlier it may have ended, seconds.
    """
    expires_at = model.runner.expires_at if model.runner else None
    if expires_at is not None:
        seconds = (expires_at - at).total_seconds()
        model.keep_alive = KeepAlive(seconds, seconds + within_s)


def _unloaded(model: ModelStatus, _: RecordedEvent, fact: facts.ModelUnloaded) -> None:
    model.runner = model.keep_alive = model.work = None
    if (why := model.why) is not None:
        model.why = Why(
            why.event,
            why.cause,
            why.actor,
            why.position,
            _REASONS[fact.reason],
            fact.evicted_by,
        )


def _used(model: ModelStatus, event: RecordedEvent, fact: facts.ModelUsed) -> None:
    model.uses += facts.uses_of(fact)
    model.last_used_at, model.last_used_by = event.occurred_at, event.actor
    model.last_used_within_s = 0.0
    if fact.uncertainty_s is msgspec.UNSET:
        return
    model.last_used_by, model.last_used_within_s = None, fact.uncertainty_s
    if fact.expires_at is not msgspec.UNSET and model.runner is not None:
        model.runner = msgspec.structs.replace(model.runner, expires_at=fact.expires_at)
        _learn_keep_alive(model, event.occurred_at, fact.uncertainty_s)


def _detected(
    model: ModelStatus, event: RecordedEvent, fact: facts.CapabilitiesDetected
) -> None:
    model.detected, model.detected_digest = fact.capabilities, fact.digest
    model.weights, model.family = fact.weights, fact.family
    model.parameter_count = fact.parameter_count
    model.quantization = fact.quantization
    model.context_trained = fact.context_trained
    model.context_source = fact.context_source
    model.context_default = fact.context_default
    model.temperature = fact.temperature
    model.temperature_source = fact.temperature_source
    model.parameters, model.detected_schema = fact.parameters, event.schema


def _configured(
    model: ModelStatus, _: RecordedEvent, fact: facts.ConfigurationChanged
) -> None:
    kept = {k: v for k, v in model.settings.items() if k not in fact.unset}
    model.settings = {**kept, **fact.set}


EFFECTS: dict[str, Callable[[ModelStatus, RecordedEvent, Any], None]] = {
    fact.__name__: effect
    for effect, kinds in (
        (_arrived, (facts.ModelDiscovered, facts.PullCompleted, facts.ModelUpdated)),
        (_removed, (facts.ModelVanished, facts.ModelDeleted)),
        (_pull_started, (facts.PullStarted,)),
        (_load_started, (facts.LoadStarted,)),
        (_reload_started, (facts.ReloadStarted,)),
        (_update_started, (facts.UpdateStarted,)),
        (_progressed, (facts.PullProgressed, facts.UpdateProgressed)),
        (_cancel_requested, (facts.CancelRequested,)),
        (
            _work_ended,
            (
                facts.PullCancelled,
                facts.PullInterrupted,
                facts.LoadCancelled,
                facts.LoadInterrupted,
                facts.ReloadCancelled,
                facts.ReloadInterrupted,
            ),
        ),
        (
            _update_ended,
            (
                facts.UpdateCancelled,
                facts.UpdateInterrupted,
                facts.UpdateUnchanged,
            ),
        ),
        (
            _failed,
            (
                facts.PullFailed,
                facts.UpdateFailed,
                facts.LoadFailed,
                facts.ReloadFailed,
            ),
        ),
        (_loaded, (facts.ModelLoaded, facts.ReloadCompleted)),
        (_not_reloaded, (facts.ReloadUnchanged,)),
        (_runner_changed, (facts.RunnerChanged,)),
        (_renewed, (facts.KeepAliveRenewed,)),
        (_unloaded, (facts.ModelUnloaded,)),
        (_used, (facts.ModelUsed,)),
        (_detected, (facts.CapabilitiesDetected,)),
        (_configured, (facts.ConfigurationChanged,)),
    )
    for fact in kinds
}
"""The effect of each event type that has one, on a model that the event is about. It is
called with the model, the event and its fact, which has the class of the type."""
