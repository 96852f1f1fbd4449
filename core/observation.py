"""From what the server answers to what is compared and recorded."""

from __future__ import annotations

from herdbook.core.capabilities import Observed
from herdbook.core.drift import Listed
from herdbook.core.wire import ShowAnswer, TagEntry


def listed(entry: TagEntry) -> Listed:
    """Return an entry of the server's list as it is compared."""
    return Listed(
        name=entry.name,
        digest=entry.digest,
        size_bytes=entry.size,
        remote_host=entry.remote_host,
        family=entry.details.family or None,
        quantization=entry.details.quantization_level or None,
        parameter_count=entry.details.parameter_count,
        capabilities=None if entry.capabilities is None else tuple(entry.capabilities),
        context_length=entry.details.context_length,
    )


def observed(model: Listed, shown: ShowAnswer | None) -> Observed:
    """Return what the server says of a model: of its list, and shown in full.

    Args:
        model: The entry of the list.
        shown: What ``/api/show`` said; None where it could not.
    """
    if shown is None:
        return Observed(
            digest=model.digest,
            family=model.family,
            parameter_count=model.parameter_count,
            quantization=model.quantization,
            listed=model.capabilities,
            listed_context=model.context_length,
            cloud=model.remote_host is not None,
        )
    return Observed(
        digest=model.digest,
        weights=shown.weights,
        family=shown.details.family or model.family,
        parameter_count=shown.parameter_count or model.parameter_count,
        quantization=shown.details.quantization_level or model.quantization,
        shown=None if shown.capabilities is None else tuple(shown.capabilities),
        listed=model.capabilities,
        shown_context=shown.context_trained,
        listed_context=model.context_length,
        num_ctx=shown.num_ctx,
        temperature=shown.temperature,
        cloud=model.remote_host is not None,
    )
