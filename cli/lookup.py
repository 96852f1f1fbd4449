"""A model that the log knows: what verbs that only tell of one begin with."""

from __future__ import annotations

from herdbook.cli.errors import NothingFoundError
from herdbook.core import ModelStatus, ReadModel


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
            f"To see what is: herdbook ls. To fetch it: herdbook pull {status.name}",
        )
    return status
