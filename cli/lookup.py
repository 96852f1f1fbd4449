"""Find the log, or a model in the log."""

from __future__ import annotations

from pathlib import Path

from herdbook.cli.errors import NothingFoundError
from herdbook.cli.invocation import Invocation
from herdbook.core import (
    AmbiguousNodeError,
    Fleet,
    ModelManager,
    ModelStatus,
    ReadModel,
)
from herdbook.core.fleet import queries
from herdbook.core.log.location import LogLocation
from herdbook.core.log.storage import log_exists
from herdbook.presentation.model_not_found import model_not_found, similar_models


async def check_log(log: LogLocation) -> None:
    """Check that the log exists, for verbs that must not create it.

    Raises:
        NothingFoundError: The log does not exist.
        StoreError: It is not readable, or only its ``-wal`` file is left.
        MissingExtraError: The driver of the database is not installed.
    """
    if not await log_exists(log):
        raise NothingFoundError(
            str(log),
            "does not exist" if isinstance(log, Path) else "has no log",
            "Choose a log with --db LOG",
        )


async def node_for(invocation: Invocation, fleet: Fleet, model: str) -> ModelManager:
    """Return the manager of the node that a verb about a model means.

    Raises:
        InvalidNameError: The name is not valid.
        AmbiguousNodeError: Several nodes have the model.
        ModelNotFoundError: There are several nodes, and none knows the model.
    """
    try:
        return await queries.node_with(fleet, model)
    except AmbiguousNodeError as error:
        command = f"herdbook {invocation.verb} {error.model} --node {error.nodes[0]}"
        error.remedy = f"Choose one: {command}"
        raise


def only_node(invocation: Invocation, fleet: Fleet) -> ModelManager:
    """Return the manager of the only node, for a verb about one server.

    Raises:
        AmbiguousNodeError: There are several nodes.
    """
    try:
        return queries.only_node(fleet)
    except AmbiguousNodeError as error:
        error.subject, error.state = invocation.verb, "needs a node"
        error.remedy = f"Add --node NAME. {error.remedy}"
        raise


def known_status(models: ReadModel, model: str) -> ModelStatus:
    """Return the status of a model that the log knows.

    Raises:
        InvalidNameError: The name is not valid.
        NothingFoundError: The log has no events of the model.
    """
    status = models.status(model)
    if status.version == 0:
        raise NothingFoundError(
            status.name,
            f"was not found on node {status.node!r}",
            similar_models(models, status.name)
            or "To list the models: herdbook ls. "
            f"To pull it: herdbook pull {status.name}",
        )
    return status


async def find_present(
    manager: ModelManager, model: str, *, may_pull: bool = True
) -> ModelStatus:
    """Return the status of a model that the server has.

    Args:
        manager: The manager of its node.
        model: The model.
        may_pull: Whether the error may suggest to pull the model.

    Raises:
        InvalidNameError: The name is not valid.
        ModelNotFoundError: The server does not have the model.
    """
    models = await manager.now()
    status = models.status(model)
    # A model that is being pulled or configured has its own, more precise error.
    if not status.present and status.version == 0:
        raise model_not_found(models, status.name, may_pull=may_pull)
    return status
