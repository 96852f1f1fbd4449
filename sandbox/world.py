"""The simulated server without its connections: store, registry, runners, clock.

Invariant: every answer is read from here, and only requests, faults and the clock
change anything here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final

import msgspec

from herdbook.sandbox.clock import Clock, ManualClock
from herdbook.sandbox.models.artifacts import Contents
from herdbook.sandbox.models.catalogue import read_catalogue
from herdbook.sandbox.models.names import DEFAULT_HOST, Name
from herdbook.sandbox.models.store import Entry, Store
from herdbook.sandbox.refusals import Refusal
from herdbook.sandbox.registry.pulls import Downloads, Pull
from herdbook.sandbox.registry.registry import Behaviour, Registry
from herdbook.sandbox.results import PendingResult
from herdbook.sandbox.runners.runners import Runners
from herdbook.sandbox.scripted_answers import Answers
from herdbook.sandbox.settings import CURRENT, Profile, Settings

#: Address of the registry in the recordings; it speaks plain HTTP.
HERD_HOST: Final = "127.0.0.1:5055"

#: A start of the server drops partial blobs older than this.
_PARTIALS_KEPT: Final = timedelta(hours=1)
#: Number of requests that ``seen`` holds.
_REMEMBERED: Final = 10_000
#: Age of the oldest recorded model when the clock starts.
_HERD_AGE: Final = timedelta(minutes=10)


class Seen(msgspec.Struct, kw_only=True):
    """A request that the server saw.

    Attributes:
        at: Time of the clock, seconds.
        model: Model that the body names; for a copy, the new name.
        agent: The client's ``User-Agent`` header.
        authorization: The client's ``Authorization`` header.
        status: HTTP status of the answer; 0 while there is none.
        ended: How it ended: ``answered``, ``closed by client`` or ``cut``; empty
            while it is in progress.
        until: Time of the clock when it ended, seconds; None while in progress.
    """

    at: float
    method: str
    path: str
    model: str = ""
    agent: str = ""
    authorization: str = ""
    status: int = 0
    ended: str = ""
    until: float | None = None


class World:
    """A simulated server with its surroundings.

    Args:
        models: Content of the store: ``none``, ``herd``, a set of the library, or
            names of models.
        clock: Its clock; a manual one by default.
        settings: Its environment.
        profile: The version to simulate.
        usual: Behaviour of the registry without faults.

    Attributes:
        connections: Functions that close an idle connection each.
        delays: Returns, for a path, the seconds that a request takes to arrive and
            the seconds that its answer takes to leave.
    """

    def __init__(
        self,
        *,
        models: str | Sequence[str] = "none",
        clock: Clock | None = None,
        settings: Settings | None = None,
        profile: Profile = CURRENT,
        usual: Behaviour | None = None,
    ) -> None:
        self.clock: Clock = clock or ManualClock()
        self.settings = settings or Settings()
        self.profile = profile
        self.store = Store()
        self.registry = _registry(usual)
        self.runners = Runners(self.clock, self.settings)
        self.downloads = Downloads(self.clock, self.store, self.registry)
        self.downloads.disk_bytes = self.settings.disk_bytes
        self.answers = Answers()
        self.seen: deque[Seen] = deque(maxlen=_REMEMBERED)
        self.delays: Callable[[str], tuple[float, float]] = _no_delays
        self.down = False
        self.connections: set[Callable[[], None]] = set()
        self.death: PendingResult[None] = PendingResult()
        self._pulls: set[Pull] = set()
        self._fill(models)

    def entry(self, name: Name) -> Entry | None:
        """Find a model of the store.

        Raises:
            Refusal: Its manifest is damaged.
        """
        entry = self.store.find(name)
        if entry is not None and entry.damaged:
            raise Refusal(500, "unexpected EOF")
        return entry

    def contents(self, entry: Entry) -> Contents:
        """Read the contents of a model's layers."""
        return self.store.contents(entry)

    def pull(self, name: Name, *, insecure: bool) -> Pull:
        """Start a pull."""
        pull = Pull(
            self.store.spelled(name),
            clock=self.clock,
            store=self.store,
            downloads=self.downloads,
            settings=self.settings,
            profile=self.profile,
        )
        pull.begin(
            lambda: self.registry.fetch(name, insecure=insecure, old=self.profile.old),
            self.registry.behaviour.latency_s,
        )
        self._pulls.add(pull)
        return pull

    def end_pull(self, pull: Pull) -> None:
        """End a pull that no client reads any more."""
        self._pulls.discard(pull)
        pull.cancel()

    def kill(self) -> None:
        """Kill the server: connections break, and unsaved parts are lost."""
        self._die(keep=False)

    def stop(self) -> None:
        """Stop the server: connections break, and downloaded parts are saved."""
        self._die(keep=True)

    def start(self) -> None:
        """Start the server again, with its models and without runners."""
        self.drop_old_partials()
        self.store.summarize(reread=True)
        self.down = False
        self.death = PendingResult()

    def drop_old_partials(self) -> None:
        """Delete partial blobs not written for an hour; not with OLLAMA_NOPRUNE."""
        if self.settings.prune:
            now = self.clock.wall(self.clock.now())
            self.store.prune(now - _PARTIALS_KEPT)

    def _die(self, *, keep: bool) -> None:
        self.down = True
        for close in tuple(self.connections):
            close()
        self.downloads.die(keep=keep)
        for pull in list(self._pulls):
            self.end_pull(pull)
        self.runners.clear()
        self.death.settle(None)

    def _fill(self, models: str | Sequence[str]) -> None:
        catalogue = read_catalogue()
        offered = catalogue.herd if models == "herd" else catalogue.library
        if isinstance(models, str):
            models = {"none": (), "herd": tuple(catalogue.herd), **catalogue.sets}[
                models
            ]
        for text in models:
            name = Name.parse(text)
            assert name is not None
            age = _HERD_AGE - timedelta(seconds=catalogue.made.get(text, 0.0))
            self.store.add(name, offered[text], self.clock.wall(0.0) - age)
        self.store.summarize()


def _no_delays(_path: str) -> tuple[float, float]:
    return 0.0, 0.0


def _registry(usual: Behaviour | None) -> Registry:
    catalogue = read_catalogue()
    registry = Registry(usual)
    registry.offer(DEFAULT_HOST, catalogue.herd)
    registry.offer(DEFAULT_HOST, catalogue.library)
    registry.offer(HERD_HOST, catalogue.herd)
    registry.plain.add(HERD_HOST)
    return registry
