"""The lifecycle: its table, and the compiled form of the table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herdbook.core.machine import LifecycleMachine
from herdbook.events import lifecycle
from herdbook.events.codec import TYPES
from herdbook.events.errors import IllegalTransitionError
from herdbook.events.lifecycle import (
    EVENTS,
    INITIAL,
    TABLE,
    TRANSITIONS,
    Activity,
    Lifecycle,
    ModelState,
    allowed,
    fold,
)

A, L, E, N, G = "available", "loaded", "error", "not_present", "loading"

# A second copy of the table: event, source states, target state, guards.
# "=" leaves the state unchanged; a target with an activity is given by the activity.
EXPECTED = """
ModelDiscovered      | N E G   | A    |
ModelVanished        | A L E G | N    |
ModelDeleted         | A L E   | N    |
PullStarted          | N E     | pull | absent
PullProgressed       | G       | =    | pulling
PullCompleted        | G       | A    | pulling
PullFailed           | G       | E    | pulling
PullCancelled        | G       | N    | pulling
PullInterrupted      | G       | N    | pulling
UpdateStarted        | A L E G | =    | present, idle
UpdateProgressed     | A L E G | =    | updating
UpdateFailed         | A L E G | =    | updating
UpdateCancelled      | A L E G | =    | updating
UpdateInterrupted    | A L E G | =    | updating
UpdateUnchanged      | A L E G | =    | updating
ModelUpdated         | E       | A    | present
ModelUpdated         | A L G   | =    | present
LoadStarted          | A E     | load | present
ModelLoaded          | G A E   | L    | present
LoadFailed           | G       | E    | a load
LoadCancelled        | G       | A    | a load
LoadInterrupted      | G       | A    | a load
CancelRequested      | G       | =    |
CancelRequested      | A L E   | =    | updating
CancelRequested      | L       | =    | idle, a reload
ReloadStarted        | L       | reload | no reload
ReloadCompleted      | L       | L    | a reload
ReloadUnchanged      | L       | L    | a reload
ReloadFailed         | L       | L    | a reload
ReloadCancelled      | L       | L    | a reload
ReloadInterrupted    | L       | L    | a reload
RunnerChanged        | L       | =    |
KeepAliveRenewed     | L       | =    |
ModelUnloaded        | L       | A    |
ModelUsed            | A       | L    |
ModelUsed            | L       | =    |
ModelUsed            | G       | =    | a load
UseFailed            | A L E G | =    | present
CapabilitiesDetected | N A L E G | =  |
ConfigurationChanged | N A L E G | =  |
"""
STATES = {"A": A, "L": L, "E": E, "N": N, "G": G}


def holds(lifecycle: Lifecycle, guard: str) -> bool:
    return {
        "": True,
        "absent": not lifecycle.present,
        "present": lifecycle.present,
        "idle": not lifecycle.updating,
        "updating": lifecycle.updating,
        "pulling": lifecycle.activity == "pull",
        "a load": lifecycle.activity == "load",
        "a reload": lifecycle.activity == "reload",
        "no reload": lifecycle.activity != "reload",
    }[guard]


def expected_after(now: Lifecycle, event: str) -> tuple[str, str | None] | None:
    """Return state and activity after an event, by the second copy of the table."""
    for line in EXPECTED.strip().splitlines():
        name, sources, to, guards = (part.strip() for part in line.split("|"))
        if (
            name == event
            and now.state in {STATES[letter] for letter in sources.split()}
            and all(holds(now, guard.strip()) for guard in guards.split(","))
        ):
            if to == "=":
                return now.state, now.activity
            if to == "reload":
                return L, to
            return (G, to) if to in {"pull", "load"} else (STATES[to], None)
    return None


@pytest.mark.parametrize("now", TRANSITIONS, ids=str)
def test_compiled_table_matches_the_second_copy(now: Lifecycle) -> None:
    for event in TYPES:
        after = TRANSITIONS[now].get(event)
        expected = expected_after(now, event)
        assert (after and (after.state, after.activity)) == expected, event


@given(st.lists(st.sampled_from(sorted(EVENTS)), max_size=60))
def test_compiled_table_matches_the_table(events: list[str]) -> None:
    now = INITIAL
    for event in events:
        rows = [row for row in TABLE if row.event == event and row.applies(now)]
        assert len(rows) <= 1
        after = rows[0].follow(now) if rows else None
        assert TRANSITIONS[now].get(event) == after
        now = after or now


def test_every_state_and_activity_is_reached() -> None:
    assert {now.state for now in TRANSITIONS} == set(ModelState)
    assert {now.activity for now in TRANSITIONS} == {
        None,
        Activity.PULL,
        Activity.LOAD,
        Activity.RELOAD,
    }


@pytest.mark.parametrize("now", TRANSITIONS, ids=str)
def test_values_of_a_lifecycle_are_consistent(now: Lifecycle) -> None:
    loading = now.activity in {Activity.PULL, Activity.LOAD}
    assert loading == (now.state is ModelState.LOADING)
    if now.activity is Activity.RELOAD:
        assert now.state is ModelState.LOADED
    assert not (now.updating and not now.present)
    if now.state in {ModelState.AVAILABLE, ModelState.LOADED}:
        assert now.present
    if now.state is ModelState.NOT_PRESENT:
        assert not now.present
    if now.state is ModelState.LOADING:
        assert now.present == (now.activity is Activity.LOAD)


def test_error_of_an_illegal_event_lists_the_allowed_events() -> None:
    with pytest.raises(IllegalTransitionError) as caught:
        LifecycleMachine().move("llama3.1:latest", INITIAL, ["ModelLoaded"])
    error = caught.value
    assert error.allowed == allowed(INITIAL)
    assert str(error) == (
        "llama3.1:latest is not present; ModelLoaded is not allowed. Allowed now: "
        "CapabilitiesDetected, ConfigurationChanged, ModelDiscovered, PullStarted"
    )


def test_text_of_a_lifecycle_has_state_and_activity() -> None:
    words = {str(now) for now in TRANSITIONS}
    assert {"not present", "pulling", "loading", "loading, updating"} <= words


def test_trigger_is_the_event_type_in_snake_case() -> None:
    assert lifecycle.TABLE[0].trigger == "model_discovered"


@pytest.mark.parametrize("now", TRANSITIONS, ids=str)
@pytest.mark.parametrize("event", [*sorted(EVENTS), "NodeLost", "Unknown"])
def test_fold_moves_to_the_state_that_an_event_implies(
    now: Lifecycle, event: str
) -> None:
    after = fold(now, event)
    states = {row.to for row in TABLE if row.event == event} - {None}
    assert after in TRANSITIONS
    if event in TRANSITIONS[now]:
        assert after == TRANSITIONS[now][event]
    elif states:
        assert after.state in states
    else:
        assert after == now
