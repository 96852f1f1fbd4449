"""Drift, case by case: pure, without a server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from herdbook.core.ollama.restart_detection import Continuity
from herdbook.core.reconcile.drift import Comparison, Drift, orphaned
from herdbook.core.reconcile.observed_uses import UseEvidence
from herdbook.core.reconcile.server_state import ListedModel, ServerState
from herdbook.events import facts
from herdbook.events.facts import Fact, Runner, UnloadReason
from herdbook.events.lifecycle import Activity, Lifecycle, ModelState
from herdbook.events.recorded import Cause
from herdbook.projections.status import ModelStatus

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
A, B, C = "a" * 64, "b" * 64, "c" * 64
WEIGHTS, OTHER_WEIGHTS = "1" * 64, "2" * 64
AVAILABLE = Lifecycle(ModelState.AVAILABLE, None, present=True)
LOADED = Lifecycle(ModelState.LOADED, None, present=True)


def listed(name: str, digest: str = A) -> ListedModel:
    return ListedModel(name=name, digest=digest, size_bytes=10)


def status(
    name: str,
    lifecycle: Lifecycle = AVAILABLE,
    *,
    digest: str | None = A,
    weights: str | None = WEIGHTS,
    runner: Runner | None = None,
) -> ModelStatus:
    return ModelStatus(
        node="local",
        name=name,
        lifecycle=lifecycle,
        version=3,
        digest=digest,
        detected_digest=digest,
        weights=weights,
        runner=runner,
    )


def runner(
    name: str, digest: str = A, *, expires_in_s: float = 300, context: int = 4096
) -> Runner:
    return Runner(
        name=name,
        digest=digest,
        context_length=context,
        size_bytes=100,
        expires_at=NOW + timedelta(seconds=expires_in_s),
    )


def drifts(
    models: list[ListedModel],
    runners: list[Runner],
    statuses: list[ModelStatus],
    *,
    restarted: bool = False,
    continuity: Continuity = Continuity.SAME,
    weights: dict[str, str] | None = None,
    uses: UseEvidence | None = None,
) -> list[Drift]:
    known = {A: WEIGHTS, B: OTHER_WEIGHTS} if weights is None else weights
    look = ServerState(
        at=NOW,
        server_version="1",
        models={model.name: model for model in models},
        runners=tuple(runners),
    )
    comparison = Comparison(
        state=look,
        statuses={one.name: one for one in statuses},
        detected={},
        weights_of=known.get,
        restarted=restarted,
        continuity=continuity,
        uses=uses,
    )
    return [
        drift for name in comparison.names() for drift in comparison.drifts_of(name)
    ]


def events(found: list[Drift]) -> list[tuple[str, Fact, Cause]]:
    return [(one.name, fact, one.cause) for one in found for fact in one.facts]


def test_unchanged_server_is_not_drift() -> None:
    held = runner("a:1")

    assert drifts([listed("a:1")], [held], [status("a:1", LOADED, runner=held)]) == []


def test_unknown_listed_model_is_discovered() -> None:
    found = drifts([listed("a:1")], [], [])

    discovered = facts.ModelDiscovered(digest=A, size_bytes=10)
    assert events(found) == [("a:1", discovered, Cause.OBSERVED)]
    assert found[0].at_version == 0


def test_discovered_model_with_a_runner_is_loaded_at_the_next_version() -> None:
    found = drifts([listed("a:1")], [runner("a:1")], [])

    assert [type(one.facts[0]) for one in found] == [
        facts.ModelDiscovered,
        facts.ModelLoaded,
    ]
    assert [one.at_version for one in found] == [0, 1]


def test_unlisted_present_model_vanished() -> None:
    found = drifts([], [], [status("a:1", LOADED, runner=runner("a:1"))])

    assert events(found) == [("a:1", facts.ModelVanished(), Cause.OBSERVED)]


def test_different_digest_is_an_update() -> None:
    found = drifts([listed("a:1", B)], [], [status("a:1")])

    updated = facts.ModelUpdated(digest=B, previous_digest=A, size_bytes=10)
    assert events(found) == [("a:1", updated, Cause.OBSERVED)]


@pytest.mark.parametrize(
    "lifecycle",
    [
        Lifecycle(ModelState.LOADING, Activity.PULL),
        Lifecycle(ModelState.LOADING, Activity.LOAD, present=True),
    ],
)
def test_running_work_is_left_to_its_command(lifecycle: Lifecycle) -> None:
    assert (
        drifts([listed("a:1", B)], [runner("a:1", B)], [status("a:1", lifecycle)]) == []
    )


def test_different_digest_during_an_update_is_left_to_the_update() -> None:
    updating = Lifecycle(ModelState.AVAILABLE, None, present=True, updating=True)

    assert drifts([listed("a:1", B)], [], [status("a:1", updating)]) == []


def test_runner_under_its_own_name_means_another_program_loaded_it() -> None:
    held = runner("a:1")

    found = drifts([listed("a:1")], [held], [status("a:1")])

    assert events(found) == [("a:1", facts.ModelLoaded(runner=held), Cause.OBSERVED)]


def test_runner_of_the_same_weights_loads_every_name_of_them() -> None:
    held = runner("a:1")

    found = drifts(
        [listed("a:1"), listed("twin:1", C)],
        [held],
        [status("a:1"), status("twin:1", digest=C)],
        weights={A: WEIGHTS, C: WEIGHTS},
    )

    loaded = facts.ModelLoaded(runner=held)
    assert events(found) == [
        ("a:1", loaded, Cause.OBSERVED),
        ("twin:1", loaded, Cause.SHARED),
    ]


def test_runner_of_other_weights_does_not_count_for_the_model() -> None:
    assert drifts([listed("a:1")], [runner("a:1", B)], [status("a:1")]) == []


def test_runner_of_unknown_weights_is_matched_by_name() -> None:
    older = runner("a:1", C)

    found = drifts(
        [listed("a:1")], [older], [status("a:1", LOADED, runner=runner("a:1"))]
    )

    assert events(found) == [("a:1", facts.RunnerChanged(runner=older), Cause.OBSERVED)]


def test_runner_with_a_different_context_has_changed() -> None:
    now = runner("a:1", context=8192)

    found = drifts(
        [listed("a:1")], [now], [status("a:1", LOADED, runner=runner("a:1"))]
    )

    assert events(found) == [("a:1", facts.RunnerChanged(runner=now), Cause.OBSERVED)]


def test_later_expiry_is_not_drift() -> None:
    before, now = runner("a:1", expires_in_s=5), runner("a:1", expires_in_s=300)

    assert drifts([listed("a:1")], [now], [status("a:1", LOADED, runner=before)]) == []


def unloaded(reason: UnloadReason, by: str | None = None) -> facts.ModelUnloaded:
    return facts.ModelUnloaded(reason=reason, evicted_by=by)


def test_runner_that_disappears_after_its_expiry_has_expired() -> None:
    gone = runner("a:1", expires_in_s=-10)

    found = drifts([listed("a:1")], [], [status("a:1", LOADED, runner=gone)])

    assert events(found) == [("a:1", unloaded(UnloadReason.EXPIRED), Cause.EXPIRY)]


def test_runner_replaced_by_another_was_evicted() -> None:
    found = drifts(
        [listed("a:1"), listed("b:1", B)],
        [runner("b:1", B)],
        [
            status("a:1", LOADED, runner=runner("a:1")),
            status("b:1", digest=B, weights=OTHER_WEIGHTS),
        ],
    )

    evicted = unloaded(UnloadReason.EVICTED, "b:1")
    assert events(found)[0] == ("a:1", evicted, Cause.EVICTION)


def test_runner_that_disappears_alone_was_unloaded_on_request() -> None:
    found = drifts([listed("a:1")], [], [status("a:1", LOADED, runner=runner("a:1"))])

    assert events(found) == [("a:1", unloaded(UnloadReason.REQUESTED), Cause.OBSERVED)]


def test_shared_runner_was_unloaded_through_the_other_name() -> None:
    shared = status("twin:1", LOADED, runner=runner("a:1"))

    found = drifts([listed("twin:1")], [], [shared])

    assert events(found) == [("twin:1", unloaded(UnloadReason.REQUESTED), Cause.SHARED)]


def test_runner_that_a_request_may_load_again_has_an_unknown_reason() -> None:
    shared = [status(name, LOADED, runner=runner("a:1")) for name in ("a:1", "twin:1")]
    relayed = UseEvidence(sightings={}, recorded_at={}, reloading={"a:1"})

    found = drifts([listed("a:1"), listed("twin:1")], [], shared, uses=relayed)

    unknown = unloaded(UnloadReason.UNKNOWN)
    assert [fact for _, fact, _ in events(found)] == [unknown, unknown]


def one_gone(continuity: Continuity) -> list[tuple[str, Fact, Cause]]:
    """Return the drift of the only loaded model, which is no longer loaded."""
    loaded = status("a:1", LOADED, runner=runner("a:1"))
    return events(drifts([listed("a:1")], [], [loaded], continuity=continuity))


def test_runner_lost_with_a_closed_connection_means_a_restart() -> None:
    restarted = unloaded(UnloadReason.SERVER_RESTARTED)
    assert one_gone(Continuity.CLOSED) == [("a:1", restarted, Cause.RESTART)]


def test_runner_lost_without_evidence_has_an_unknown_reason() -> None:
    unknown = unloaded(UnloadReason.UNKNOWN)
    assert one_gone(Continuity.UNKNOWN) == [("a:1", unknown, Cause.OBSERVED)]


def test_closed_connection_is_not_evidence_while_another_runner_stays() -> None:
    found = drifts(
        [listed("a:1"), listed("b:1", B)],
        [runner("b:1", B)],
        [
            status("a:1", LOADED, runner=runner("a:1")),
            status("b:1", LOADED, digest=B, runner=runner("b:1", B)),
        ],
        continuity=Continuity.CLOSED,
    )

    assert events(found) == [("a:1", unloaded(UnloadReason.UNKNOWN), Cause.OBSERVED)]


def two_gone(continuity: Continuity) -> list[tuple[Fact, Cause]]:
    """Return the drifts of two loaded models that are no longer loaded."""
    found = drifts(
        [listed("a:1"), listed("b:1", B)],
        [],
        [
            status("a:1", LOADED, runner=runner("a:1")),
            status("b:1", LOADED, digest=B, runner=runner("b:1", B)),
        ],
        continuity=continuity,
    )
    return [one[1:] for one in events(found)]


def test_loss_of_all_of_several_runners_means_a_restart() -> None:
    restarted = unloaded(UnloadReason.SERVER_RESTARTED)
    assert two_gone(Continuity.UNKNOWN) == [(restarted, Cause.RESTART)] * 2


def test_runners_lost_from_the_same_process_were_unloaded_on_request() -> None:
    requested = unloaded(UnloadReason.REQUESTED)
    assert two_gone(Continuity.SAME) == [(requested, Cause.OBSERVED)] * 2


def test_known_outage_means_a_restart() -> None:
    held = status("a:1", LOADED, runner=runner("a:1", expires_in_s=-10))

    found = drifts([listed("a:1")], [], [held], restarted=True)

    restarted = unloaded(UnloadReason.SERVER_RESTARTED)
    assert events(found) == [("a:1", restarted, Cause.RESTART)]


def test_use_without_a_runner_is_corrected_with_an_unknown_reason() -> None:
    found = drifts([listed("a:1")], [], [status("a:1", LOADED)])

    assert events(found) == [("a:1", unloaded(UnloadReason.UNKNOWN), Cause.OBSERVED)]


def test_model_replaced_by_other_weights_is_not_loaded_by_its_old_runner() -> None:
    old = runner("a:1", A)
    replaced = status("a:1", LOADED, digest=B, weights=OTHER_WEIGHTS, runner=old)

    found = drifts([listed("a:1", B)], [old], [replaced])

    reason = unloaded(UnloadReason.MODEL_REPLACED)
    assert events(found) == [("a:1", reason, Cause.OBSERVED)]


def test_cloud_model_is_never_loaded_locally() -> None:
    cloud = msgspec.structs.replace(listed("a:cloud"), remote_host="https://ollama.com")

    found = drifts([cloud], [runner("a:cloud")], [])

    assert [type(fact) for _, fact, _ in events(found)] == [facts.ModelDiscovered]


def test_runner_of_a_deleted_model_is_orphaned() -> None:
    held, nobodys = runner("a:1"), runner("gone:1", C)
    look = ServerState(
        at=NOW,
        server_version="1",
        models={"a:1": listed("a:1")},
        runners=(held, nobodys),
    )

    assert orphaned(look, {"a:1": WEIGHTS}, {A: WEIGHTS}.get) == [nobodys]
