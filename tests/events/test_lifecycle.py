"""The lifecycle: the table as it was decided, and its compiled form."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    transition,
)

A, L, E, N, G = "available", "loaded", "error", "not_present", "loading"

# The decided table, written down a second time: event, from, to, what must hold.
# "=" leaves the state as it is; to "loading" names the activity.
DECIDED = """
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
RunnerChanged        | L       | =    |
ModelUnloaded        | L       | A    |
ModelUsed            | L A     | L    |
ModelUsed            | G       | =    | a load
CapabilitiesDetected | N A L E G | =  |
ConfigurationChanged | N A L E G | =  |
"""
STATES = {"A": A, "L": L, "E": E, "N": N, "G": G}


def holds(lifecycle: Lifecycle, what: str) -> bool:
    return {
        "": True,
        "absent": not lifecycle.present,
        "present": lifecycle.present,
        "idle": not lifecycle.updating,
        "updating": lifecycle.updating,
        "pulling": lifecycle.activity == "pull",
        "a load": lifecycle.activity == "load",
    }[what]


def decided(now: Lifecycle, event: str) -> tuple[str, str | None] | None:
    """Return state and activity after an event, by the second table."""
    for line in DECIDED.strip().splitlines():
        name, sources, to, guards = (part.strip() for part in line.split("|"))
        if (
            name == event
            and now.state in {STATES[letter] for letter in sources.split()}
            and all(holds(now, guard.strip()) for guard in guards.split(","))
        ):
            if to == "=":
                return now.state, now.activity
            return (G, to) if to in {"pull", "load"} else (STATES[to], None)
    return None


@pytest.mark.parametrize("now", TRANSITIONS, ids=str)
def test_compiled_table_is_the_decided_one(now: Lifecycle) -> None:
    for event in TYPES:
        after = TRANSITIONS[now].get(event)
        expected = decided(now, event)
        assert (after and (after.state, after.activity)) == expected, event


@given(st.lists(st.sampled_from(sorted(EVENTS)), max_size=60))
def test_compiled_table_is_the_table(events: list[str]) -> None:
    now = INITIAL
    for event in events:
        rows = [row for row in TABLE if row.event == event and row.applies(now)]
        assert len(rows) <= 1
        if rows:
            after = rows[0].follow(now)
            assert transition(now, event, model="m") == after
            now = after
        else:
            with pytest.raises(IllegalTransitionError):
                transition(now, event, model="m")


def test_every_state_and_activity_is_reached() -> None:
    assert {now.state for now in TRANSITIONS} == set(ModelState)
    assert {now.activity for now in TRANSITIONS} == {
        None,
        Activity.PULL,
        Activity.LOAD,
    }


@pytest.mark.parametrize("now", TRANSITIONS, ids=str)
def test_parts_of_a_lifecycle_agree(now: Lifecycle) -> None:
    assert (now.activity is not None) == (now.state is ModelState.LOADING)
    assert not (now.updating and not now.present)
    if now.state in {ModelState.AVAILABLE, ModelState.LOADED}:
        assert now.present
    if now.state is ModelState.NOT_PRESENT:
        assert not now.present
    if now.state is ModelState.LOADING:
        assert now.present == (now.activity is Activity.LOAD)


def test_illegal_event_says_what_is_allowed() -> None:
    with pytest.raises(IllegalTransitionError) as caught:
        transition(INITIAL, "ModelLoaded", model="llama3.1:latest")
    error = caught.value
    assert error.allowed == allowed(INITIAL)
    assert str(error) == (
        "llama3.1:latest is not present; ModelLoaded is not allowed. Allowed now: "
        "CapabilitiesDetected, ConfigurationChanged, ModelDiscovered, PullStarted"
    )


def test_lifecycle_is_told_in_words() -> None:
    words = {str(now) for now in TRANSITIONS}
    assert {"not present", "loading (pull)", "loading (load), updating"} <= words


def test_rows_name_their_triggers() -> None:
    assert lifecycle.TABLE[0].trigger == "model_discovered"


@pytest.mark.parametrize("now", TRANSITIONS, ids=str)
@pytest.mark.parametrize("event", [*sorted(EVENTS), "NodeLost", "Unknown"])
def test_fold_moves_to_the_state_that_an_event_names(
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
