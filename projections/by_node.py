"""The streams of models by their node, so that a question about one reads no others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Self

from herdbook.events.streams import model_of


class StreamsByNode:
    """The streams of the models of each node; streams are added and never removed."""

    def __init__(self, streams: Iterable[str] = ()) -> None:
        self._streams: dict[str, list[str]] = {}
        for stream in streams:
            key = model_of(stream)
            if key is not None:
                self.add(key.node, stream)

    def add(self, node: str, stream: str) -> None:
        """Add the stream of a new model."""
        self._streams.setdefault(node, []).append(stream)

    def of(self, node: str) -> Sequence[str]:
        """Return the streams of a node, in the order in which they were added."""
        return self._streams.get(node, ())

    @classmethod
    def copy_of(cls, other: Self) -> Self:
        """Copy the streams, so that later ones are not added to the copy."""
        copied = cls()
        copied._streams = {node: [*own] for node, own in other._streams.items()}
        return copied
