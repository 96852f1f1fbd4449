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
    expected = TRANSITIONS[lifecycle].get(event)

    if expected is None:
        with pytest.raises(IllegalTransitionError):
            MACHINE.move("a:1", lifecycle, [event])
    else:
        assert MACHINE.move("a:1", lifecycle, [event]) == expected


@given(events=st.lists(st.sampled_from(sorted(EVENTS)), max_size=60))
def test_machine_and_table_agree_on_random_histories(events: list[str]) -> None:
    lifecycle, legal = INITIAL, list[str]()

    for event in events:
        if event in TRANSITIONS[lifecycle]:
            lifecycle = TRANSITIONS[lifecycle][event]
            legal.append(event)
        else:
            with pytest.raises(IllegalTransitionError):
                MACHINE.move("a:1", INITIAL, [*legal, event])
        assert MACHINE.move("a:1", INITIAL, legal) == lifecycle


def test_refusal_names_model_state_and_allowed_events() -> None:
    with pytest.raises(IllegalTransitionError) as refused:
        MACHINE.move("a:1", INITIAL, ["ModelLoaded"])

    assert refused.value.model == "a:1"
    assert str(refused.value) == (
        "a:1 is not present; ModelLoaded is not allowed. Allowed now: "
        "CapabilitiesDetected, ConfigurationChanged, ModelDiscovered, PullStarted"
    )


def test_machine_adds_no_attributes_to_the_model() -> None:
    model = Model(Lifecycle(*INITIAL))

    MACHINE.add_model(model)

    assert model.lifecycle == INITIAL
    assert not hasattr(model, "__dict__")
    assert MACHINE.models == []
