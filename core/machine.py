"""The state machine of the models, built with ``transitions`` from the lifecycle table.

The machine decides whether an event is legal, and moves the state. Guards are pure,
callbacks only set attributes, and nothing is asynchronous. This avoids known faults of
``transitions`` 0.9: a cancelled asynchronous trigger returns ``False`` after the state
has moved, and a queued trigger returns before it has run.

``Machine.add_model`` would bind about 9 kB of partial functions to each model. Here it
only sets the state, and events are triggered by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from transitions import EventData, Machine, MachineError

from herdbook.events.codec import TRIGGERS
from herdbook.events.errors import IllegalTransitionError
from herdbook.events.lifecycle import (
    INITIAL,
    TABLE,
    Activity,
    Guard,
    Lifecycle,
    ModelState,
    Transition,
    allowed,
)


class Model:
    """A model while an event is triggered: what decides whether the event is legal.

    Attributes:
        state: One of the five states.
        activity: The activity while it is ``loading``.
        present: Whether the server has the model.
        updating: Whether an update is running.
    """

    __slots__ = ("activity", "present", "state", "updating")

    state: ModelState
    activity: Activity | None
    present: bool
    updating: bool

    def __init__(self, lifecycle: Lifecycle) -> None:
        self.state, self.activity, self.present, self.updating = lifecycle

    @property
    def lifecycle(self) -> Lifecycle:
        """State, activity, presence and update, as one value."""
        return Lifecycle(self.state, self.activity, self.present, self.updating)


class LifecycleMachine(Machine):
    """One synchronous machine for all models, without references to them.

    The effect of an event depends only on the lifecycle, so legal transitions are
    cached. Refusals are not, because their errors name the model.
    """

    def __init__(self) -> None:
        self._decided: dict[tuple[Lifecycle, str], Lifecycle] = {}
        super().__init__(
            model=None,
            states=ModelState,
            transitions=[_transition(row) for row in TABLE],
            initial=INITIAL.state,
            auto_transitions=False,
            send_event=True,
        )

    def add_model(self, model: Any, initial: Any = None) -> None:
        """Set the state of a model without binding methods to it."""
        model.state = initial or INITIAL.state

    def move(self, name: str, lifecycle: Lifecycle, events: Sequence[str]) -> Lifecycle:
        """Return the lifecycle of a model after a sequence of events.

        Args:
            name: Name of the model, for errors.
            lifecycle: Its lifecycle before the events.
            events: The names of the facts.

        Raises:
            IllegalTransitionError: The table does not allow one of the events.
        """
        for event in events:
            after = self._decided.get((lifecycle, event))
            if after is None:
                after = self._decide(name, lifecycle, event)
                self._decided[lifecycle, event] = after
            lifecycle = after
        return lifecycle

    def _decide(self, name: str, lifecycle: Lifecycle, event: str) -> Lifecycle:
        """Trigger an event and return the new lifecycle."""
        model = Model(lifecycle)
        try:
            moved = self.events[TRIGGERS[event]].trigger(model)
        except (MachineError, KeyError):
            moved = False
        if not moved:
            raise IllegalTransitionError(
                name,
                current=str(lifecycle),
                event=event,
                allowed=allowed(lifecycle),
            )
        return model.lifecycle


def _transition(row: Transition) -> dict[str, Any]:
    return {
        "trigger": row.trigger,
        "source": list(row.sources),
        "dest": row.to,
        "conditions": [partial(_holds, guard) for guard in row.guards],
        "after": partial(_effect, row),
    }


def _holds(guard: Guard, event: EventData) -> bool:
    assert isinstance(event.model, Model)
    return event.model.lifecycle.holds(guard)


def _effect(row: Transition, event: EventData) -> None:
    model = event.model
    assert isinstance(model, Model)
    if row.to is not None:
        model.activity = row.activity
    if row.present is not None:
        model.present = row.present
    if row.updating is not None:
        model.updating = row.updating
