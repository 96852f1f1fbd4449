"""The colour of each state. The word says the same, for terminals without colour."""

from __future__ import annotations

from typing import Final

from herdbook.cli.output import Piece
from herdbook.core import ModelState, ModelStatus
from herdbook.presentation.wording import state_text

STYLES: Final = {
    ModelState.LOADED: "green",
    ModelState.LOADING: "yellow",
    ModelState.ERROR: "bold red",
    ModelState.AVAILABLE: "",
    ModelState.NOT_PRESENT: "dim",
}


def state_piece(status: ModelStatus) -> Piece:
    """Return the name of a state in its colour."""
    return Piece(state_text(status), STYLES[status.state])
