"""What can be done with a model in its state, and who may."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

from herdbook.core import ModelState, ModelStatus, RunningOperation
from herdbook.presentation.facts import is_interrupted
from herdbook.service.auth.tokens import Role
from herdbook.service.dashboard.layout import PageRequest


class Action(StrEnum):
    """Something that one does with a model; the last word of its page's path."""

    PULL = "pull"
    UPDATE = "update"
    LOAD = "load"
    UNLOAD = "unload"
    CANCEL = "cancel"
    USE = "use"
    DELETE = "delete"


LABELS: Final = {
    Action.PULL: "Pull model",
    Action.UPDATE: "Update model",
    Action.LOAD: "Load model",
    Action.UNLOAD: "Unload model",
    Action.CANCEL: "Cancel",
    Action.USE: "Mark as used",
    Action.DELETE: "Delete model",
}
"""The labels of the buttons."""


class Button(NamedTuple):
    """A way to do it.

    Attributes:
        action: What it does.
        label: What stands on it.
        link: The page that says what will happen, and does it.
        off: Why it cannot be used; empty where it can.
    """

    action: Action
    label: str
    link: str
    off: str


def actions_for(
    status: ModelStatus, work: RunningOperation | None = None
) -> list[Action]:
    """Return what can be done with a model, the most likely first.

    Args:
        status: The model.
        work: What the service is at work on with it, if the log does not have it yet.
    """
    if work is not None or status.activity is not None:
        ways = [Action.CANCEL]
        return [*ways, Action.LOAD] if _can_load(status) else ways
    if not status.present:
        ways = [Action.PULL]
        return [*ways, Action.DELETE] if status.state is ModelState.ERROR else ways
    ways = [Action.UPDATE, Action.USE, Action.DELETE]
    if status.remote_host:
        return ways
    first = Action.UNLOAD if status.state is ModelState.LOADED else Action.LOAD
    return [first, *ways]


def _can_load(status: ModelStatus) -> bool:
    """Return whether a model that is updated can be loaded meanwhile."""
    return status.updating and status.state is ModelState.AVAILABLE


def buttons_for(
    visit: PageRequest, status: ModelStatus, work: RunningOperation | None = None
) -> list[Button]:
    """Return the buttons for what can be done with a model."""
    return [
        Button(
            action,
            _label(action, status),
            visit.links.model(status.name, action.value),
            visit.off(needed(action)),
        )
        for action in actions_for(status, work)
    ]


def needed(action: Action) -> Role:
    """Return the role that a action takes."""
    return Role.ADMIN if action is Action.DELETE else Role.OPERATE


def _label(action: Action, status: ModelStatus) -> str:
    failed = status.state is ModelState.ERROR or is_interrupted(status)
    if failed and action in (Action.PULL, Action.LOAD):
        return f"{action.capitalize()} again"
    if status.state is ModelState.ERROR and not status.present:
        return "Dismiss" if action is Action.DELETE else LABELS[action]
    return LABELS[action]
