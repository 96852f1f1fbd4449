"""The true state of the server, and the state in the log, both without Herdbook.

The true state is read from the sandbox server's own store and runners. The log is read
with SQLite alone (type and data), and folded by the rules in this file.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from proof.oracle import TrueModel

from herdbook.sandbox import World
from herdbook.sandbox.models.artifacts import Kind

ARRIVALS = ("ModelDiscovered", "PullCompleted")
REMOVALS = ("ModelVanished", "ModelDeleted")
IN_MEMORY = ("ModelLoaded", "ModelUsed", "ReloadCompleted", "RunnerChanged")
NOT_IN_MEMORY = ("ModelUnloaded", "LoadStarted")


class Seen(NamedTuple):
    """The true state at the time of a refresh.

    Attributes:
        position: Position of the log.
        truth: The models of the server, by name.
        at_work: Models that Herdbook was changing and may record later.
    """

    position: int
    truth: dict[str, TrueModel]
    at_work: set[str]

    def differences(self, reported: dict[str, TrueModel]) -> list[str]:
        """Return the models with another reported state than the true one."""
        return [
            f"{name}: {reported.get(name)} is reported, true is {self.truth.get(name)}"
            for name in sorted((reported.keys() | self.truth.keys()) - self.at_work)
            if reported.get(name) != self.truth.get(name)
        ]


class Oracle:
    """Reads the server's own state, and keeps its history."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.refreshes: list[Seen] = []

    def now(self) -> dict[str, TrueModel]:
        """Return the true state; a model without weights cannot be in memory."""
        held = {one.wanted.weights.digest for one in self._world.runners.listed()}
        return {
            entry.name.display: TrueModel(
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

    def assert_log_agrees(self, log: Path) -> None:
        """Assert that the log had the true state at the position of each refresh."""
        reported: dict[str, TrueModel] = {}
        recorded = _recorded(log)
        position = 0
        for seen in self.refreshes:
            while position < seen.position:
                position, name, kind, data = next(recorded)
                _apply(reported, name, kind, data)
            assert not seen.differences(reported), (
                seen.position,
                seen.differences(reported),
            )


def _recorded(log: Path) -> Iterator[tuple[int, str, str, dict[str, object]]]:
    with closing(sqlite3.connect(log)) as connection:
        rows = connection.execute(
            "SELECT position, stream, type, data FROM events ORDER BY position"
        )
        for position, stream, kind, data in rows:
            yield position, stream.removeprefix("model/local/"), kind, json.loads(data)


def _apply(
    reported: dict[str, TrueModel], name: str, kind: str, data: dict[str, object]
) -> None:
    """Apply one event to the reported models."""
    if kind in REMOVALS:
        reported.pop(name, None)
    elif kind in (*ARRIVALS, "ModelUpdated"):
        held = kind == "ModelUpdated" and reported[name].loaded
        reported[name] = TrueModel(
            str(data["digest"]), int(str(data["size_bytes"])), held
        )
    elif kind in (*IN_MEMORY, *NOT_IN_MEMORY):
        reported[name] = reported[name]._replace(loaded=kind in IN_MEMORY)
