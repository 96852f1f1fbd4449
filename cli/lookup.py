"""Look up what a command is about: a model that the log knows, or the log itself."""

from __future__ import annotations

from pathlib import Path

from herdbook.cli.errors import NothingFoundError
from herdbook.core import ModelStatus, ReadModel
from herdbook.events.sqlite.log_file import log_exists


def check_log(log: Path) -> None:
    """Check that there is a log, for commands that must not create one.

    Raises:
        NothingFoundError: There is none.
        StoreError: It may not be read, or its ``-wal`` is without a log.
    """
    if not log_exists(log) and not log.exists():
        raise NothingFoundError(str(log), "does not exist", "Name the log with --db")


def known_status(moment: ReadModel, model: str) -> ModelStatus:
    """Return the status of a model that something was ever recorded of.

    Raises:
        InvalidNameError: It is no name.
        NothingFoundError: The log knows no such model.
    """
    status = moment.status(model)
    if status.version == 0:
        raise NothingFoundError(
            status.name,
            f"is not known on {status.node}",
            f"To see what is: herdbook ls. To pull it: herdbook pull {status.name}",
        )
    return status
