"""Suggest models with similar names."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Final

from herdbook.core import ModelNotFoundError, ReadModel

_SIMILAR: Final = 0.75
"""Least similarity of a suggested model name, from 0 to 1."""


def similar_models(models: ReadModel, name: str) -> str:
    """Return the present models with a similar name as a remedy; empty if none."""
    present = [status.name for status in models.statuses() if status.present]
    base = name.rpartition(":")[0].lower()
    tags = [each for each in present if each.rpartition(":")[0].lower() == base]
    close = get_close_matches(name, present, n=3, cutoff=_SIMILAR)
    near = list(dict.fromkeys([*tags, *close]))
    return f"Did you mean {' or '.join(near)}?" if near else ""


def model_not_found(models: ReadModel, name: str) -> ModelNotFoundError:
    """Create the error for a model that the server does not have."""
    error = ModelNotFoundError(name, where=models.status(name).node)
    error.remedy = similar_models(models, name) or error.remedy
    return error
