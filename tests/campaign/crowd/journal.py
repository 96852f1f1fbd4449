"""The true history of the sandbox server, in order.

The sandbox's own store and runners record each change when it happens. The journal
shares no code with Herdbook's reading of a server.
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


class RunnerState(NamedTuple):
    """The properties of a runner that a client can see."""

    digest: str
    context: int


class Period(NamedTuple):
    """A period in which the presence or the memory of a model did not change.

    Attributes:
        state: For presence, a digest or None; for memory, a runner or None.
        began: Start of the period.
        agents: Senders of the requests for this model that were running at the start.
    """

    state: object
    began: datetime
    agents: frozenset[str]

    def is_by(self, *, ours: bool) -> bool:
        """Return whether Herdbook, or else another client, can have caused it."""
        mine = {agent for agent in self.agents if agent.startswith(HERDBOOK)}
        return bool(mine if ours else self.agents - mine) or not self.agents


class Journal:
    """Records presence and memory of every model, period by period.

    A model counts as in memory while a runner has its weights, even if it was deleted:
    a server lists its models in one answer and its runners in another.

    Args:
        world: The sandbox server.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._weights: dict[str, str] = {}
        self.presence: defaultdict[str, list[Period]] = defaultdict(list)
        self.memory: defaultdict[str, list[Period]] = defaultdict(list)
        world.seen = deque()  # unlimited, until they are checked
        self._note()
        world.store.changed = self._note
        world.runners.changed = self._note

    def now(self) -> datetime:
        """Return the time of the server's clock."""
        return self._world.clock.wall(self._world.clock.now())

    def date(self, at: float | None) -> datetime | None:
        """Return the date of a time on the server's clock."""
        return None if at is None else self._world.clock.wall(at)

    def present_models(self) -> dict[str, tuple[str, bool]]:
        """Return the present models: digest, and whether each is in memory."""
        return {
            name: (str(periods[-1].state), self.memory[name][-1].state is not None)
            for name, periods in self.presence.items()
            if periods[-1].state is not None
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
        """Return Herdbook's requests for a model that were running in a period."""
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

    def history(self, name: str, since: datetime) -> list[tuple[datetime, str]]:
        """Return changes of a model and requests for it since a time."""
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
        """Forget everything except the present state."""
        for kept in (self.presence, self.memory):
            for periods in kept.values():
                del periods[:-1]
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
            one.wanted.weights.digest: RunnerState(
                one.wanted.digest, one.wanted.context
            )
            for one in self._world.runners.listed()
        }
        self._keep(self.presence, present)
        self._keep(
            self.memory,
            {name: held.get(digest) for name, digest in self._weights.items()},
        )

    def _keep(
        self, kept: defaultdict[str, list[Period]], states: Mapping[str, object]
    ) -> None:
        for name in kept.keys() | states.keys():
            state = states.get(name)
            if not kept[name] or kept[name][-1].state != state:
                agents = frozenset(self._under_way(name))
                kept[name].append(Period(state, self.now(), agents))

    def _under_way(self, name: str) -> Iterator[str]:
        for one in self._world.seen:
            if one.until is None and one.model == name:
                yield one.agent


def _since(periods: list[Period], since: datetime) -> list[Period]:
    """Return the periods that ended after a time."""
    ends = [one.began for one in periods[1:]]
    return [
        one
        for one, ended in zip(periods, [*ends, None], strict=True)
        if ended is None or ended >= since
    ]
