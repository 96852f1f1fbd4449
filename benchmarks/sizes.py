"""How much is measured with."""

from __future__ import annotations

import msgspec


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured with.

    Attributes:
        rounds: Interleaved runs of which the medians are taken.
        commands: How many callers there are, and how many commands each gives in a run.
        models: Models that the commands are spread over.
        replayed: Events of the one stream that is replayed.
        rebuilt: Events of the log that views are rebuilt from.
        opened: Events of the log that is opened from a snapshot.
        past: Events of the log that is asked about the past.
        remembered: Models whose views are weighed.
        served: Models whose statuses are asked for over HTTP.
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
"""Enough to see that everything runs; its figures say nothing."""
