"""Convert the server's answers into the values that are compared and recorded."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING

from herdbook.core.models.capabilities import ModelMetadata
from herdbook.core.ollama.wire import ShowAnswer, TagEntry
from herdbook.core.reconcile.server_state import ListedModel, ServerState

if TYPE_CHECKING:
    from herdbook.core.ollama.client import ServerAnswers

MODELS_AT_ONCE = 200
"""Entries converted before other tasks run."""


def listed(entry: TagEntry) -> ListedModel:
    """Convert an entry of the server's list."""
    details, capabilities = entry.details, entry.capabilities
    return ListedModel(
        name=entry.name,
        digest=entry.digest,
        size_bytes=entry.size,
        remote_host=entry.remote_host,
        family=details.family or None,
        quantization=details.quantization_level or None,
        parameter_count=details.parameter_count,
        capabilities=None if capabilities is None else tuple(capabilities),
        context_length=details.context_length,
    )


async def server_state(
    shown: ServerAnswers, at: datetime, *, began_at: datetime
) -> ServerState:
    """Convert the answers of a server; other tasks run in between.

    Args:
        shown: The server's answers.
        at: When the last of them arrived.
        began_at: When the first of them was requested.
    """
    models = {}
    for number, entry in enumerate(shown.models, start=1):
        models[entry.name] = listed(entry)
        if number % MODELS_AT_ONCE == 0:
            await asyncio.sleep(0)
    return ServerState(
        at=at,
        server_version=shown.version,
        models=models,
        runners=tuple(entry.runner for entry in shown.runners or ()),
        unreadable=shown.unreadable,
        reports_runners=shown.runners is not None,
        began_at=began_at,
    )


def metadata_of(model: ListedModel, shown: ShowAnswer | None) -> ModelMetadata:
    """Combine the facts about a model from the list and from ``/api/show``.

    Args:
        model: The entry of the list.
        shown: The answer of ``/api/show``; None if there is none.
    """
    if shown is None:
        return ModelMetadata(
            digest=model.digest,
            family=model.family,
            parameter_count=model.parameter_count,
            quantization=model.quantization,
            listed=model.capabilities,
            listed_context=model.context_length,
            cloud=model.remote_host is not None,
        )
    details, capabilities = shown.details, shown.capabilities
    return ModelMetadata(
        digest=model.digest,
        weights=shown.weights,
        family=details.family or model.family,
        parameter_count=shown.parameter_count or model.parameter_count,
        quantization=details.quantization_level or model.quantization,
        shown=None if capabilities is None else tuple(capabilities),
        listed=model.capabilities,
        evidence=shown.capability_evidence,
        shown_context=shown.context_trained,
        listed_context=model.context_length,
        num_ctx=shown.num_ctx,
        temperature=shown.temperature,
        parameters=shown.recordable_parameters,
        cloud=model.remote_host is not None,
    )
