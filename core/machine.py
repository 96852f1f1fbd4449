"""The state machine of the models: ``transitions``, built from the one table.

The machine decides whether an event is legal and moves the state; it does nothing
else. Its guards are pure, its callbacks set attributes, nothing in it waits: known
faults of ``transitions`` 0.9 (a cancelled asynchronous trigger answers ``False``
after the state has moved; a queue answers before it ran) cannot come up.

``Machine.add_model`` would bind some nine kilobytes of partial functions to each
model. Here it sets the state, and events are triggered by name.
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
    """A model as the machine sees it: what decides which events are legal.

    Attributes:
        name: Its name, for errors.
        state: One of the five states.
        activity: What goes on while it is ``loading``.
        present: Whether the server has it.
        updating: Whether an update is under way.
    """

    __slots__ = ("activity", "name", "present", "state", "updating")

    state: ModelState
    activity: Activity | None
    present: bool
    updating: bool

    def __init__(self, name: str, lifecycle: Lifecycle = INITIAL) -> None:
        self.name = name
        self.state, self.activity, self.present, self.updating = lifecycle

    @property
    def lifecycle(self) -> Lifecycle:
        """All that decides, as one value."""
        return Lifecycle(self.state, self.activity, self.present, self.updating)


class LifecycleMachine(Machine):
    """One synchronous machine for all models; it keeps none of them.

    What an event does depends on the lifecycle alone, so a decision of the machine
    is remembered; a refusal is decided anew each time.
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
        """Set the state of a model, and bind nothing to it."""
        model.state = initial or INITIAL.state

    def move(self, model: Model, event: str) -> None:
        """Move a model by an event.

        Args:
            model: The model.
            event: The name of the fact.

        Raises:
            IllegalTransitionError: The table does not allow it; nothing moved.
        """
        before = model.lifecycle
        after = self._decided.get((before, event)) or self._decide(model, event)
        self._decided[before, event] = after
        model.state, model.activity, model.present, model.updating = after

    def _decide(self, model: Model, event: str) -> Lifecycle:
        """Trigger an event on a copy of a model; return what it became."""
        trial = Model(model.name, model.lifecycle)
        try:
            moved = self.events[TRIGGERS[event]].trigger(trial)
        except (MachineError, KeyError):
            moved = False
        if not moved:
            raise IllegalTransitionError(
                model.name,
                current=str(model.lifecycle),
                event=event,
                allowed=allowed(model.lifecycle),
            )
        return trial.lifecycle

    def ask(self, model: Model, events: Sequence[str]) -> Model:
        """Return what a model becomes by events, one after another.

        The model itself stays: its state moves when the events are recorded.

        Raises:
            IllegalTransitionError: One of them is not legal.
        """
        moved = Model(model.name, model.lifecycle)
        for event in events:
            self.move(moved, event)
        return moved


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
