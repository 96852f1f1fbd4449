"""What truly happened on the sandbox's server, in the order in which it happened.

The journal is kept by the sandbox's own store and runners, at the moment of each
change. It shares no code with what Herdbook reads of the server.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import NamedTuple

from herdbook.sandbox import World
from herdbook.sandbox.models.artifacts import Kind
from herdbook.sandbox.world import Seen

HERDBOOK = "herdbook"
"""The user agent of Herdbook's own requests."""


class Held(NamedTuple):
    """What a runner is, as far as a client can see."""

    digest: str
    context: int


class Stretch(NamedTuple):
    """A time during which something about a model did not change.

    Attributes:
        state: a digest or None where it is about presence; a runner or None where it
            is about memory.
        began: when it began.
        agents: who had a request about this model under way when it began.
    """

    state: object
    began: datetime
    agents: frozenset[str]

    def is_by(self, *, ours: bool) -> bool:
        """Return whether Herdbook can have caused it, or else another client."""
        mine = {agent for agent in self.agents if agent.startswith(HERDBOOK)}
        return bool(mine if ours else self.agents - mine) or not self.agents


class Journal:
    """Keeps the presence and the memory of every model, stretch by stretch.

    A model is in memory while a runner has its weights, also while it is not there: a
    server lists its models in one answer and its runners in another.

    Args:
        world: the sandbox's server.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._weights: dict[str, str] = {}
        self.presence: defaultdict[str, list[Stretch]] = defaultdict(list)
        self.memory: defaultdict[str, list[Stretch]] = defaultdict(list)
        world.seen = deque()  # all of them, until they are judged
        self._note()
        world.store.changed = self._note
        world.runners.changed = self._note

    def now(self) -> datetime:
        """Return the time of the server's clock."""
        return self._world.clock.wall(self._world.clock.now())

    def date(self, at: float | None) -> datetime | None:
        """Return the date of a time of the server's clock."""
        return None if at is None else self._world.clock.wall(at)

    def truth(self) -> dict[str, tuple[str, bool]]:
        """Return what is there now, by name: digest, and whether it is in memory."""
        return {
            name: (str(stretches[-1].state), self.memory[name][-1].state is not None)
            for name, stretches in self.presence.items()
            if stretches[-1].state is not None
        }

    def was_absent(self, name: str, since: datetime) -> bool:
        """Return whether the server lacked a model at some time since then."""
        return (
            any(one.state is None for one in _since(self.presence.get(name, []), since))
            or name not in self.presence
        )

    def was_unloaded(self, name: str, since: datetime) -> bool:
        """Return whether a model was not in memory at some time since then."""
        return any(
            one.state is None for one in _since(self.memory.get(name, []), since)
        )

    def asked(
        self, name: str, *paths: str, since: datetime, until: datetime
    ) -> list[Seen]:
        """Return Herdbook's requests about a model that were under way then."""
        clock = self._world.clock
        return [
            one
            for one in self._world.seen
            if one.model == name
            and one.path in paths
            and one.agent.startswith(HERDBOOK)
            and clock.wall(one.at) <= until
            and (one.until is None or clock.wall(one.until) >= since)
        ]

    def story(self, name: str, since: datetime) -> list[tuple[datetime, str]]:
        """Return what happened to a model since then, and what was asked about it."""
        clock = self._world.clock
        lines = [
            (clock.wall(one.at), f"{one.agent}: {one.method} {one.path} {one.ended}")
            for one in self._world.seen
            if one.model == name
        ]
        lines += [
            (clock.wall(one.until), f"{one.agent}: {one.path} {one.status} ends")
            for one in self._world.seen
            if one.model == name and one.until is not None
        ]
        for kept in (self.presence, self.memory):
            lines += [(one.began, f"server: {one.state}") for one in kept.get(name, [])]
        return [(at, line) for at, line in lines if at >= since]

    def forget(self) -> None:
        """Forget all but what is so now."""
        for kept in (self.presence, self.memory):
            for stretches in kept.values():
                del stretches[:-1]
        under_way = (one for one in self._world.seen if one.until is None)
        self._world.seen = deque(under_way)

    def _note(self) -> None:
        present: dict[str, object] = {}
        for entry in self._world.store.entries.values():
            name = entry.name.display
            present[name] = entry.digest
            self._weights[name] = next(
                layer.digest
                for layer in entry.manifest.layers
                if layer.kind is Kind.WEIGHTS
            )
        held = {
            one.wanted.weights.digest: Held(one.wanted.digest, one.wanted.context)
            for one in self._world.runners.listed()
        }
        self._keep(self.presence, present)
        self._keep(
            self.memory,
            {name: held.get(digest) for name, digest in self._weights.items()},
        )

    def _keep(
        self, kept: defaultdict[str, list[Stretch]], states: Mapping[str, object]
    ) -> None:
        for name in kept.keys() | states.keys():
            state = states.get(name)
            if not kept[name] or kept[name][-1].state != state:
                agents = frozenset(self._under_way(name))
                kept[name].append(Stretch(state, self.now(), agents))

    def _under_way(self, name: str) -> Iterator[str]:
        for one in self._world.seen:
            if one.until is None and one.model == name:
                yield one.agent


def _since(stretches: list[Stretch], since: datetime) -> list[Stretch]:
    """Return the stretches that had not ended then."""
    ends = [one.began for one in stretches[1:]]
    return [
        one
        for one, ended in zip(stretches, [*ends, None], strict=True)
        if ended is None or ended >= since
    ]
