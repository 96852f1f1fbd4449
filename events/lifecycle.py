"""The lifecycle of a model: the one table that decides which events are legal.

The state answers one question: can the model be used now? While a model is
``loading``, the activity shows why: a pull or a load. A loaded model may have the
activity ``reload``. Three more values decide which events are legal next: whether the
server has the model (``present``), the activity, and whether an update is running
(``updating``), which does not change the state.

A row of the table has an event, its source states, its target state and its
guards. Every (state, event) without a row is illegal: the append fails, and log
and state are unchanged. The state machine, the projections, the diagram, the tests
and the documentation are made from this table; ``TRANSITIONS`` is its compiled form.
"""

from __future__ import annotations

from enum import StrEnum
from functools import cache
from typing import Final, NamedTuple

from herdbook.events import facts
from herdbook.events.codec import TRIGGERS
from herdbook.events.facts import Fact


class ModelState(StrEnum):
    """Whether a model can be used now."""

    NOT_PRESENT = "not_present"
    LOADING = "loading"
    AVAILABLE = "available"
    LOADED = "loaded"
    ERROR = "error"


class Activity(StrEnum):
    """Work that is running on a model."""

    PULL = "pull"
    UPDATE = "update"
    LOAD = "load"
    RELOAD = "reload"


LOADS: Final = (Activity.LOAD, Activity.RELOAD)
"""Work of a load: of a model that is not loaded, or of one that is."""


class Guard(StrEnum):
    """A condition of a transition, in addition to its source states."""

    ABSENT = "absent"
    PRESENT = "present"
    PULLING = "pulling"
    LOADING = "a load"
    RELOADING = "a reload"
    NOT_RELOADING = "no reload"
    UPDATING = "updating"
    NOT_UPDATING = "not updating"


class Lifecycle(NamedTuple):
    """The values that decide which events are legal.

    Attributes:
        state: The state.
        activity: The pull or load of a model that is ``loading``, or the reload of one
            that is ``loaded``; None if there is none.
        present: Whether the server has the model.
        updating: Whether an update is running; the state does not change with it.
    """

    state: ModelState
    activity: Activity | None = None
    present: bool = False
    updating: bool = False

    def __str__(self) -> str:
        pulling = self.activity is Activity.PULL
        words = "pulling" if pulling else self.state.value.replace("_", " ")
        reloading = ", reloading" if self.activity is Activity.RELOAD else ""
        return words + reloading + (", updating" if self.updating else "")

    def holds(self, guard: Guard) -> bool:
        """Return whether a guard is true."""
        match guard:
            case Guard.ABSENT:
                return not self.present
            case Guard.PRESENT:
                return self.present
            case Guard.PULLING:
                return self.activity is Activity.PULL
            case Guard.LOADING:
                return self.activity is Activity.LOAD
            case Guard.RELOADING:
                return self.activity is Activity.RELOAD
            case Guard.NOT_RELOADING:
                return self.activity is not Activity.RELOAD
            case Guard.UPDATING:
                return self.updating
            case Guard.NOT_UPDATING:
                return not self.updating


class Transition(NamedTuple):
    """A row of the table.

    Attributes:
        event: Event type.
        sources: States in which the event is legal, if the guards hold.
        to: State after the event; None leaves state and activity unchanged.
        guards: Conditions that must also hold.
        activity: Activity after the event, if ``to`` is given.
        present: Whether the server has the model afterwards; None: unchanged.
        updating: Whether an update is running afterwards; None: unchanged.
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
        """The event type in snake case."""
        return TRIGGERS[self.event]

    def applies(self, lifecycle: Lifecycle) -> bool:
        """Return whether the event is legal at a point of the lifecycle."""
        return lifecycle.state in self.sources and all(
            lifecycle.holds(guard) for guard in self.guards
        )

    def follow(self, lifecycle: Lifecycle) -> Lifecycle:
        """Return the lifecycle after the event; the row must apply."""
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
) -> Transition:
    return Transition(event.__name__, sources, to, guards, activity, present, updating)


def _ends_update(event: type[Fact]) -> Transition:
    return _row(event, _PRESENT_STATES, None, Guard.UPDATING, updating=False)


def _ends_pull(event: type[Fact], to: ModelState, *, present: bool) -> Transition:
    return _row(event, (_LOADING,), to, Guard.PULLING, present=present)


def _ends_load(event: type[Fact], to: ModelState) -> Transition:
    return _row(event, (_LOADING,), to, Guard.LOADING)


def _ends_reload(event: type[Fact]) -> Transition:
    return _row(event, (_LOADED,), _LOADED, Guard.RELOADING)


TABLE: tuple[Transition, ...] = (
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
    _row(facts.CancelRequested, (_LOADING,), None),
    _row(facts.CancelRequested, (_AVAILABLE, _LOADED, _ERROR), None, Guard.UPDATING),
    _row(
        facts.CancelRequested,
        (_LOADED,),
        None,
        Guard.RELOADING,
        Guard.NOT_UPDATING,
    ),
    _row(
        facts.ReloadStarted,
        (_LOADED,),
        _LOADED,
        Guard.NOT_RELOADING,
        activity=Activity.RELOAD,
    ),
    _ends_reload(facts.ReloadCompleted),
    _ends_reload(facts.ReloadUnchanged),
    _ends_reload(facts.ReloadFailed),
    _ends_reload(facts.ReloadCancelled),
    _ends_reload(facts.ReloadInterrupted),
    _row(facts.RunnerChanged, (_LOADED,), None),
    _row(facts.KeepAliveRenewed, (_LOADED,), None),
    _row(facts.ModelUnloaded, (_LOADED,), _AVAILABLE),
    _row(facts.ModelUsed, (_AVAILABLE,), _LOADED),
    _row(facts.ModelUsed, (_LOADED,), None),
    _row(facts.ModelUsed, (_LOADING,), None, Guard.LOADING),
    _row(facts.UseFailed, _PRESENT_STATES, None, Guard.PRESENT),
    _row(facts.CapabilitiesDetected, _EVERY_STATE, None),
    _row(facts.ConfigurationChanged, _EVERY_STATE, None),
)
"""The table. A model that is ``loading`` and present is being loaded, not pulled."""

INITIAL = Lifecycle(ModelState.NOT_PRESENT)
"""The lifecycle of a model without events."""


def _compile() -> dict[Lifecycle, dict[str, Lifecycle]]:
    compiled: dict[Lifecycle, dict[str, Lifecycle]] = {}
    found = [INITIAL]
    for lifecycle in found:
        nexts = {r.event: r.follow(lifecycle) for r in TABLE if r.applies(lifecycle)}
        compiled[lifecycle] = nexts
        found += [new for new in dict.fromkeys(nexts.values()) if new not in found]
    return compiled


TRANSITIONS: dict[Lifecycle, dict[str, Lifecycle]] = _compile()
"""The compiled table: for each lifecycle that can be reached, the legal event
types, each with the lifecycle after the event."""

EVENTS: frozenset[str] = frozenset(row.event for row in TABLE)
"""The types of all events about models."""


def allowed(lifecycle: Lifecycle) -> tuple[str, ...]:
    """Return the types of the events that are legal now, sorted."""
    return tuple(sorted(TRANSITIONS[lifecycle]))


def fold(lifecycle: Lifecycle, event: str) -> Lifecycle:
    """Return the lifecycle after a recorded event, even if the event is illegal.

    An older version, or another program, may have recorded an illegal event.
    Readers continue: the model moves to the state that the event type implies, and
    keeps its state if the type implies none.

    Args:
        lifecycle: The lifecycle before the event.
        event: Event type; an event that is not about a model changes nothing.
    """
    after = TRANSITIONS[lifecycle].get(event)
    return _forced(lifecycle, event) if after is None else after


def changes_state(before: Lifecycle, after: Lifecycle) -> bool:
    """Return whether a model enters a state, or is ``loading`` for another reason.

    A reload does not change the state, and neither does an update.
    """
    return after.state is not before.state or (
        after.activity is not before.activity and after.state is _LOADING
    )


def state_implied_by(event: str) -> Lifecycle | None:
    """Return the lifecycle after an event in an unknown state; None if unknown.

    It is known where the event leads to the same state from every state.
    """
    targets = {row.to for row in TABLE if row.event == event}
    is_known = len(targets) == 1 and targets != {None}
    return _forced(INITIAL, event) if is_known else None


@cache
def _forced(lifecycle: Lifecycle, event: str) -> Lifecycle:
    """Apply the first row of an event that has a target state, as if it were legal.

    The result is always a lifecycle of the compiled table, which every later event
    needs.
    """
    row = next((r for r in TABLE if r.event == event and r.to is not None), None)
    if row is None:
        return lifecycle
    legal = (known for known in TRANSITIONS if row.applies(known))
    return row.follow(
        min(legal, key=lambda known: known.updating != lifecycle.updating)
    )
