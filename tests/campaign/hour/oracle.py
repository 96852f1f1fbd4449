"""What is true of the server, and what the log's file tells: neither asks Herdbook.

Truth is read in the sandbox server's own store and runners. The log is read with
SQLite alone, its columns of type and data, and folded by rules of this file.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from proof.oracle import Truth

from herdbook.sandbox import World
from herdbook.sandbox.models.artifacts import Kind

COMES = ("ModelDiscovered", "PullCompleted")
GOES = ("ModelVanished", "ModelDeleted")
IN_MEMORY = ("ModelLoaded", "ModelUsed", "RunnerChanged")
NOT_IN_MEMORY = ("ModelUnloaded", "LoadStarted")


class Seen(NamedTuple):
    """What was true at a moment when the herd had looked.

    Attributes:
        position: How far the log went then.
        truth: What the server had, by name.
        at_work: What Herdbook was at work on then, and may tell later.
    """

    position: int
    truth: dict[str, Truth]
    at_work: set[str]

    def differing(self, told: dict[str, Truth]) -> list[str]:
        """Return the models of which something else is told, with both."""
        return [
            f"{name}: told {told.get(name)}, true is {self.truth.get(name)}"
            for name in sorted((told.keys() | self.truth.keys()) - self.at_work)
            if told.get(name) != self.truth.get(name)
        ]


class Oracle:
    """Knows the server from inside, and keeps its story."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.story: list[Seen] = []

    def now(self) -> dict[str, Truth]:
        """Return what is true now; what has no weights cannot be in memory."""
        held = {one.wanted.weights.digest for one in self._world.runners.listed()}
        return {
            entry.name.display: Truth(
                entry.digest,
                entry.manifest.size,
                any(
                    layer.digest in held
                    for layer in entry.manifest.layers
                    if layer.kind is Kind.WEIGHTS
                ),
            )
            for entry, _ in self._world.store.listed()
        }

    def assert_log_tells_it(self, log: Path) -> None:
        """At each moment of the story, the log's own ends where it does."""
        told: dict[str, Truth] = {}
        recorded = _recorded(log)
        position = 0
        for seen in self.story:
            while position < seen.position:
                position, name, kind, data = next(recorded)
                _tell(told, name, kind, data)
            assert not seen.differing(told), (seen.position, seen.differing(told))


def _recorded(log: Path) -> Iterator[tuple[int, str, str, dict[str, object]]]:
    with closing(sqlite3.connect(log)) as connection:
        rows = connection.execute(
            "SELECT position, stream, type, data FROM events ORDER BY position"
        )
        for position, stream, kind, data in rows:
            yield position, stream.removeprefix("model/local/"), kind, json.loads(data)


def _tell(
    told: dict[str, Truth], name: str, kind: str, data: dict[str, object]
) -> None:
    """Take one event into what is told of the models."""
    if kind in GOES:
        told.pop(name, None)
    elif kind in (*COMES, "ModelUpdated"):
        held = kind == "ModelUpdated" and told[name].loaded
        told[name] = Truth(str(data["digest"]), int(str(data["size_bytes"])), held)
    elif kind in (*IN_MEMORY, *NOT_IN_MEMORY):
        told[name] = told[name]._replace(loaded=kind in IN_MEMORY)
