"""The actions that a model's state and the user's role permit."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

from herdbook.core import ModelState, ModelStatus, RunningOperation
from herdbook.presentation.facts import is_interrupted
from herdbook.service.auth.tokens import Role
from herdbook.service.dashboard.page_request import PageRequest


class Action(StrEnum):
    """An action on a model; the last segment of its page's path."""

    PULL = "pull"
    UPDATE = "update"
    LOAD = "load"
    UNLOAD = "unload"
    CANCEL = "cancel"
    USE = "use"
    DELETE = "delete"


PARTICIPLES: Final = {
    Action.PULL: "pulled",
    Action.UPDATE: "updated",
    Action.LOAD: "loaded",
    Action.UNLOAD: "unloaded",
    Action.CANCEL: "cancelled",
    Action.USE: "marked as used",
    Action.DELETE: "deleted",
}
"""What cannot be done with a model, after "cannot be"."""

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
    """A button for an action.

    Attributes:
        action: The action.
        label: The label.
        link: The page that shows the consequences and performs it.
        off: Why it is disabled; empty if it is not.
    """

    action: Action
    label: str
    link: str
    off: str


def actions_for(
    status: ModelStatus, work: RunningOperation | None = None
) -> list[Action]:
    """Return the possible actions on a model, most likely first.

    Args:
        status: The model.
        work: The operation of the service on it, if the log does not have it yet.
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
    """Return whether a model can be loaded during its update."""
    return status.updating and status.state is ModelState.AVAILABLE


def buttons_for(
    visit: PageRequest, status: ModelStatus, work: RunningOperation | None = None
) -> list[Button]:
    """Return the buttons for the possible actions on a model."""
    node = status.node if visit.several else ""
    return [
        Button(
            action,
            _label(action, status),
            visit.links.model(status.name, action.value, node=node),
            visit.off(needed(action)),
        )
        for action in actions_for(status, work)
    ]


def needed(action: Action) -> Role:
    """Return the role that an action needs."""
    return Role.ADMIN if action is Action.DELETE else Role.OPERATE


def _label(action: Action, status: ModelStatus) -> str:
    failed = status.state is ModelState.ERROR or is_interrupted(status)
    if failed and action in (Action.PULL, Action.LOAD):
        return f"{action.capitalize()} again"
    if status.state is ModelState.ERROR and not status.present:
        return "Dismiss" if action is Action.DELETE else LABELS[action]
    return LABELS[action]
