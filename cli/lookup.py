"""Find the log, or a model in the log."""

from __future__ import annotations

from pathlib import Path

from herdbook.cli.errors import NothingFoundError
from herdbook.core import ModelStatus, ReadModel
from herdbook.events.sqlite.log_file import log_exists


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
            f"To see what is: herdbook ls. To pull it: herdbook pull {status.name}",
        )
    return status
