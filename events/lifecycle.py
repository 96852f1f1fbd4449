"""The lifecycle of a model: one table, and the only place that decides legality.

State answers one question: can the model be used now? While it is ``loading``,
the activity says what goes on. Three more things decide what may happen next:
whether the server has the model (``present``), the activity, and whether an
update is under way beside the state (``updating``).

A row of the table is (event, from, to, guard) and what else the event does. Every
(state, event) that no row allows is illegal: an error, with log and state
unchanged. The machine, the folds, the diagram, the tests and the documentation
are made from this table; ``transition`` is its compiled form.
"""

from __future__ import annotations

from enum import StrEnum
from functools import cache
from typing import NamedTuple

from herdbook.events import facts
from herdbook.events.codec import TRIGGERS
from herdbook.events.errors import IllegalTransitionError
from herdbook.events.facts import Fact


class ModelState(StrEnum):
    """Whether a model can be used now."""

    NOT_PRESENT = "not_present"
    LOADING = "loading"
    AVAILABLE = "available"
    LOADED = "loaded"
    ERROR = "error"


class Activity(StrEnum):
    """Work under way on a model."""

    PULL = "pull"
    UPDATE = "update"
    LOAD = "load"


class Guard(StrEnum):
    """What must also hold for a row to apply."""

    ABSENT = "absent"
    PRESENT = "present"
    PULLING = "pulling"
    LOADING = "a load"
    UPDATING = "updating"
    NOT_UPDATING = "not updating"


class Lifecycle(NamedTuple):
    """All that decides which events are legal.

    Attributes:
        state: The state.
        activity: What goes on while ``loading``: a pull or a load; else None.
        present: Whether the server has the model.
        updating: Whether an update is under way; it leaves the state as it is.
    """

    state: ModelState
    activity: Activity | None = None
    present: bool = False
    updating: bool = False

    def __str__(self) -> str:
        words = self.state.value.replace("_", " ")
        if self.activity:
            words += f" ({self.activity})"
        return words + (", updating" if self.updating else "")

    def holds(self, guard: Guard) -> bool:
        """Return whether a guard holds."""
        match guard:
            case Guard.ABSENT:
                return not self.present
            case Guard.PRESENT:
                return self.present
            case Guard.PULLING:
                return self.activity is Activity.PULL
            case Guard.LOADING:
                return self.activity is Activity.LOAD
            case Guard.UPDATING:
                return self.updating
            case Guard.NOT_UPDATING:
                return not self.updating


class Row(NamedTuple):
    """One row of the table.

    Attributes:
        event: Name of the fact.
        sources: The states that it is legal in, if the guards hold.
        to: The state after it; None leaves state and activity as they are.
        guards: What must also hold.
        activity: The activity after it, where ``to`` is ``loading``.
        present: Whether the server has the model after it; None: as before.
        updating: Whether an update is under way after it; None: as before.
    """

    event: str
    sources: tuple[ModelState, ...]
    to: ModelState | None
    guards: tuple[Guard, ...] = ()
    activity: Activity | None = None
    present: bool | None = None
    updating: bool | None = None

    @property
    def trigger(self) -> str:
        """The event's name in snake case."""
        return TRIGGERS[self.event]

    def applies(self, lifecycle: Lifecycle) -> bool:
        """Return whether this row is legal there."""
        return lifecycle.state in self.sources and all(
            lifecycle.holds(guard) for guard in self.guards
        )

    def follow(self, lifecycle: Lifecycle) -> Lifecycle:
        """Return what comes after it; the row must apply."""
        return Lifecycle(
            lifecycle.state if self.to is None else self.to,
            lifecycle.activity if self.to is None else self.activity,
            lifecycle.present if self.present is None else self.present,
            lifecycle.updating if self.updating is None else self.updating,
        )


_NOT_PRESENT = ModelState.NOT_PRESENT
_LOADING = ModelState.LOADING
_AVAILABLE = ModelState.AVAILABLE
_LOADED = ModelState.LOADED
_ERROR = ModelState.ERROR
_PRESENT_STATES = (_AVAILABLE, _LOADED, _ERROR, _LOADING)
_EVERY_STATE = tuple(ModelState)


def _row(
    event: type[Fact],
    sources: tuple[ModelState, ...],
    to: ModelState | None,
    *guards: Guard,
    activity: Activity | None = None,
    present: bool | None = None,
    updating: bool | None = None,
) -> Row:
    return Row(event.__name__, sources, to, guards, activity, present, updating)


def _ends_update(event: type[Fact]) -> Row:
    return _row(event, _PRESENT_STATES, None, Guard.UPDATING, updating=False)


def _ends_pull(event: type[Fact], to: ModelState, *, present: bool) -> Row:
    return _row(event, (_LOADING,), to, Guard.PULLING, present=present)


def _ends_load(event: type[Fact], to: ModelState) -> Row:
    return _row(event, (_LOADING,), to, Guard.LOADING)


TABLE: tuple[Row, ...] = (
    _row(
        facts.ModelDiscovered,
        (_NOT_PRESENT, _ERROR, _LOADING),
        _AVAILABLE,
        present=True,
    ),
    _row(
        facts.ModelVanished,
        _PRESENT_STATES,
        _NOT_PRESENT,
        present=False,
        updating=False,
    ),
    _row(
        facts.ModelDeleted,
        (_AVAILABLE, _LOADED, _ERROR),
        _NOT_PRESENT,
        present=False,
        updating=False,
    ),
    _row(
        facts.PullStarted,
        (_NOT_PRESENT, _ERROR),
        _LOADING,
        Guard.ABSENT,
        activity=Activity.PULL,
    ),
    _row(facts.PullProgressed, (_LOADING,), None, Guard.PULLING),
    _ends_pull(facts.PullCompleted, _AVAILABLE, present=True),
    _ends_pull(facts.PullFailed, _ERROR, present=False),
    _ends_pull(facts.PullCancelled, _NOT_PRESENT, present=False),
    _ends_pull(facts.PullInterrupted, _NOT_PRESENT, present=False),
    _row(
        facts.UpdateStarted,
        _PRESENT_STATES,
        None,
        Guard.PRESENT,
        Guard.NOT_UPDATING,
        updating=True,
    ),
    _row(facts.UpdateProgressed, _PRESENT_STATES, None, Guard.UPDATING),
    _ends_update(facts.UpdateFailed),
    _ends_update(facts.UpdateCancelled),
    _ends_update(facts.UpdateInterrupted),
    _ends_update(facts.UpdateUnchanged),
    _row(
        facts.ModelUpdated,
        (_ERROR,),
        _AVAILABLE,
        Guard.PRESENT,
        updating=False,
    ),
    _row(
        facts.ModelUpdated,
        (_AVAILABLE, _LOADED, _LOADING),
        None,
        Guard.PRESENT,
        updating=False,
    ),
    _row(
        facts.LoadStarted,
        (_AVAILABLE, _ERROR),
        _LOADING,
        Guard.PRESENT,
        activity=Activity.LOAD,
    ),
    _row(
        facts.ModelLoaded,
        (_LOADING, _AVAILABLE, _ERROR),
        _LOADED,
        Guard.PRESENT,
    ),
    _ends_load(facts.LoadFailed, _ERROR),
    _ends_load(facts.LoadCancelled, _AVAILABLE),
    _ends_load(facts.LoadInterrupted, _AVAILABLE),
    _row(facts.RunnerChanged, (_LOADED,), None),
    _row(facts.ModelUnloaded, (_LOADED,), _AVAILABLE),
    _row(facts.ModelUsed, (_LOADED, _AVAILABLE), _LOADED),
    _row(facts.ModelUsed, (_LOADING,), None, Guard.LOADING),
    _row(facts.CapabilitiesDetected, _EVERY_STATE, None),
    _row(facts.ConfigurationChanged, _EVERY_STATE, None),
)
"""The table. In ``loading``, present means that the activity is a load."""

INITIAL = Lifecycle(ModelState.NOT_PRESENT)
"""Where every model begins."""


def _compile() -> dict[Lifecycle, dict[str, Lifecycle]]:
    compiled: dict[Lifecycle, dict[str, Lifecycle]] = {}
    found = [INITIAL]
    for lifecycle in found:
        nexts = {r.event: r.follow(lifecycle) for r in TABLE if r.applies(lifecycle)}
        compiled[lifecycle] = nexts
        found += [new for new in dict.fromkeys(nexts.values()) if new not in found]
    return compiled


TRANSITIONS: dict[Lifecycle, dict[str, Lifecycle]] = _compile()
"""The compiled table: for each lifecycle that can be reached, each legal event's
name and what comes after it."""

EVENTS: frozenset[str] = frozenset(row.event for row in TABLE)
"""The names of all events that the lifecycle knows."""


def allowed(lifecycle: Lifecycle) -> tuple[str, ...]:
    """Return the names of the events that are legal now, sorted."""
    return tuple(sorted(TRANSITIONS[lifecycle]))


def transition(lifecycle: Lifecycle, event: str, *, model: str) -> Lifecycle:
    """Return what comes after an event.

    Args:
        lifecycle: Where the model is.
        event: The name of the fact.
        model: Whose it is, for the error.

    Raises:
        IllegalTransitionError: The table does not allow it.
    """
    try:
        return TRANSITIONS[lifecycle][event]
    except KeyError:
        raise IllegalTransitionError(
            model,
            current=str(lifecycle),
            event=event,
            allowed=allowed(lifecycle),
        ) from None


def fold(lifecycle: Lifecycle, event: str) -> Lifecycle:
    """Return what comes after a recorded event, even where the table forbids it.

    An older version, or another program, may have recorded an event that is not
    legal where it stands. Readers continue: the model moves to the state that the
    event's type names, and stays where it is if the type names none.

    Args:
        lifecycle: Where the model is.
        event: The name of the fact; one that is not about a model changes nothing.
    """
    after = TRANSITIONS[lifecycle].get(event)
    return _forced(lifecycle, event) if after is None else after


@cache
def _forced(lifecycle: Lifecycle, event: str) -> Lifecycle:
    """Follow an event's first row that names a state, as from a legal lifecycle.

    Only a lifecycle of the compiled table comes out: every later event needs one.
    """
    row = next((r for r in TABLE if r.event == event and r.to is not None), None)
    if row is None:
        return lifecycle
    legal = (known for known in TRANSITIONS if row.applies(known))
    return row.follow(
        min(legal, key=lambda known: known.updating != lifecycle.updating)
    )
