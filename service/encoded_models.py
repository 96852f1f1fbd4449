"""The JSON of each model, kept until the model changes.

A poll after an event then encodes the models that have changed, not all of them.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import cast

import msgspec

from herdbook.core import ReadModel
from herdbook.core.concurrency.time_slice import TimeSlice
from herdbook.presentation import shapes
from herdbook.projections.status import ModelStatus

_encode = msgspec.json.Encoder().encode


class _Encoded(msgspec.Struct, frozen=True):
    """The JSON of a model, and what it was made from."""

    record: ModelStatus
    node_since: datetime | None
    json: msgspec.Raw


class EncodedModels:
    """The JSON of the models of each node at the last position that was asked for."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, _Encoded]] = {}

    def forget_other_nodes(self, nodes: Collection[str]) -> None:
        """Drop the models of nodes that are not among these, such as removed ones."""
        self._kept = {node: kept for node, kept in self._kept.items() if node in nodes}

    async def of(self, read_model: ReadModel) -> list[shapes.Model]:
        """Return the models for ``shapes.as_of``, already encoded, in time slices.

        Args:
            read_model: A fixed read model, whose records are never changed.
        """
        node, time_slice = read_model.node_status(), TimeSlice()
        node_since = None if node.reached else node.since
        may_age = read_model.overdue_since is not None or read_model.held_back
        before = self._kept.get(read_model.node, {})
        kept = {}
        for record in read_model.records():
            found = before.get(record.name)
            if (
                may_age
                or found is None
                or found.record is not record
                or found.node_since != node_since
            ):
                status = read_model.status(record.name)
                encoded = msgspec.Raw(_encode(shapes.model(status, read_model)))
                found = _Encoded(record, node_since, encoded)
                await time_slice.checkpoint()
            kept[record.name] = found
        # Models with the time since when they may be outdated are not kept.
        self._kept[read_model.node] = {} if may_age else kept
        return cast("list[shapes.Model]", [one.json for one in kept.values()])
