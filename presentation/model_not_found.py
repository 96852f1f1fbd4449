"""The error for a model that the server does not have, with similar names."""

from __future__ import annotations

from herdbook.core import ModelNotFoundError, ReadModel
from herdbook.core.errors.suggestions import did_you_mean_model


def similar_models(models: ReadModel, name: str) -> str:
    """Return a suggestion of present models as a remedy; empty if none is near."""
    present = [status.name for status in models.statuses() if status.present]
    return did_you_mean_model(name, present)


def model_not_found(
    models: ReadModel, name: str, *, may_pull: bool = True
) -> ModelNotFoundError:
    """Create the error for a model that the server does not have.

    Args:
        models: The models of the node.
        name: The model.
        may_pull: Whether a pull would help; not before a deletion.
    """
    remedy = "Pull it first" if may_pull else "Check the name"
    return ModelNotFoundError(
        name,
        where=f"node {models.status(name).node!r}",
        remedy=similar_models(models, name) or remedy,
    )
