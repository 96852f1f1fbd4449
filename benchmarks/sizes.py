"""The sizes of the benchmarks."""

from __future__ import annotations

import msgspec


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """The sizes of the benchmarks.

    Attributes:
        rounds: Interleaved runs; the median counts.
        commands: Numbers of callers, with the number of commands of each in a run.
        models: Models of the commands.
        replayed: Events of the stream that is replayed.
        rebuilt: Events of the log from which views are rebuilt.
        opened: Events of the log that is opened from a snapshot.
        past: Events of the log for queries about the past and about use.
        remembered: Models for the memory of the views.
        served: Models in the statuses that are requested over HTTP.
        requests: Requests in a run.
        relayed: Requests through the gateway in a run.
    """

    rounds: int = 5
    commands: tuple[tuple[int, int], ...] = ((1, 100), (10, 20), (100, 5))
    models: int = 100
    replayed: int = 10_000
    rebuilt: int = 50_000
    opened: int = 200_000
    past: int = 1_000_000
    remembered: int = 10_000
    served: int = 1_000
    requests: int = 50
    relayed: int = 1_000


QUICK = Sizes(
    rounds=1,
    commands=((1, 3), (10, 2), (100, 1)),
    replayed=100,
    rebuilt=300,
    opened=300,
    past=300,
    remembered=50,
    served=20,
    requests=3,
    relayed=20,
)
"""Tiny sizes, to check that everything runs; the figures mean nothing."""
