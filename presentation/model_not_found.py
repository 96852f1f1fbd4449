"""The error for a model that the server does not have, with similar names."""

from __future__ import annotations

from herdbook.core import ModelNotFoundError, ReadModel
from herdbook.core.errors.suggestions import did_you_mean_model


def similar_models(models: ReadModel, name: str) -> str:
    """Return a suggestion of present models as a remedy; empty if none is near."""
    present = [status.name for status in models.statuses() if status.present]
    return did_you_mean_model(name, present)


def model_not_found(models: ReadModel, name: str) -> ModelNotFoundError:
    """Create the error for a model that the server does not have."""
    error = ModelNotFoundError(name, where=f"node {models.status(name).node!r}")
    error.remedy = similar_models(models, name) or error.remedy
    return error
