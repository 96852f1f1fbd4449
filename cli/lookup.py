"""Find the log, or a model in the log."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from herdbook.cli.errors import NothingFoundError
from herdbook.core import ModelManager, ModelNotFoundError, ModelStatus, ReadModel
from herdbook.events.sqlite.log_file import log_exists

_SIMILAR = 0.75
"""Least similarity of a suggested model name, from 0 to 1."""


def check_log(log: Path) -> None:
    """Check that the log exists, for verbs that must not create it.

    Raises:
        NothingFoundError: The log does not exist.
        StoreError: It is not readable, or only its ``-wal`` file is left.
    """
    if not log_exists(log) and not log.exists():
        raise NothingFoundError(
            str(log), "does not exist", "Choose a log with --db PATH"
        )


def known_status(models: ReadModel, model: str) -> ModelStatus:
    """Return the status of a model that the log knows.

    Raises:
        InvalidNameError: The name is not valid.
        NothingFoundError: The log knows no such model.
    """
    status = models.status(model)
    if status.version == 0:
        raise NothingFoundError(
            status.name,
            f"is not known on {status.node}",
            suggestions(models, status.name)
            or f"List models: herdbook ls. Pull it: herdbook pull {status.name}",
        )
    return status


async def find_present(manager: ModelManager, model: str) -> ModelStatus:
    """Return the status of a model that the server has.

    Raises:
        InvalidNameError: The name is not valid.
        ModelNotFoundError: The server does not have the model.
    """
    models = await manager.now()
    status = models.status(model)
    # A model that is being pulled or configured has its own, more precise error.
    if not status.present and status.version == 0:
        error = ModelNotFoundError(status.name, where=status.node)
        error.remedy = suggestions(models, status.name) or error.remedy
        raise error
    return status


def suggestions(models: ReadModel, name: str) -> str:
    """Return the present models with a similar name as a remedy; empty if none."""
    present = [status.name for status in models.statuses() if status.present]
    base = name.rpartition(":")[0].lower()
    tags = [each for each in present if each.rpartition(":")[0].lower() == base]
    close = get_close_matches(name, present, n=3, cutoff=_SIMILAR)
    near = list(dict.fromkeys([*tags, *close]))
    return f"Did you mean {' or '.join(near)}?" if near else ""
