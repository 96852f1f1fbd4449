"""The machine of ``transitions`` and the compiled table agree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herdbook.core.machine import LifecycleMachine, Model
from herdbook.events.codec import TYPES
from herdbook.events.errors import IllegalTransitionError
from herdbook.events.lifecycle import EVENTS, INITIAL, TRANSITIONS, Lifecycle

MACHINE = LifecycleMachine()


@pytest.mark.parametrize("lifecycle", TRANSITIONS, ids=str)
@pytest.mark.parametrize("event", sorted(TYPES))
def test_machine_agrees_with_the_compiled_table(
    lifecycle: Lifecycle, event: str
) -> None:
    model = Model("a:1", lifecycle)
    expected = TRANSITIONS[lifecycle].get(event)

    if expected is None:
        with pytest.raises(IllegalTransitionError):
            MACHINE.move(model, event)
        assert model.lifecycle == lifecycle
    else:
        MACHINE.move(model, event)
        assert model.lifecycle == expected


@given(events=st.lists(st.sampled_from(sorted(EVENTS)), max_size=60))
def test_machine_and_table_agree_on_random_histories(events: list[str]) -> None:
    model, lifecycle = Model("a:1"), INITIAL

    for event in events:
        legal = event in TRANSITIONS[lifecycle]
        if legal:
            MACHINE.move(model, event)
            lifecycle = TRANSITIONS[lifecycle][event]
        else:
            with pytest.raises(IllegalTransitionError):
                MACHINE.move(model, event)
        assert model.lifecycle == lifecycle


def test_queries_move_only_a_copy() -> None:
    model = Model("a:1")

    asked = MACHINE.preview(model, ["PullStarted", "PullCompleted"])

    assert str(asked.lifecycle) == "available"
    assert model.lifecycle == INITIAL


def test_refusal_names_model_state_and_allowed_events() -> None:
    with pytest.raises(IllegalTransitionError) as refused:
        MACHINE.preview(Model("a:1"), ["ModelLoaded"])

    assert refused.value.model == "a:1"
    assert str(refused.value) == (
        "a:1 is not present; ModelLoaded is not allowed. Allowed now: "
        "CapabilitiesDetected, ConfigurationChanged, ModelDiscovered, PullStarted"
    )


def test_machine_adds_no_attributes_to_the_model() -> None:
    model = Model("a:1", Lifecycle(*INITIAL))

    MACHINE.add_model(model)

    assert model.lifecycle == INITIAL
    assert not hasattr(model, "__dict__")
    assert MACHINE.models == []
