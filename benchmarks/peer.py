"""The peer: the same models with the ``eventsourcing`` library, in two forms.

``default_peer`` follows its tutorial: declarative aggregates, JSON, no cache.
``tuned_peer`` is the fastest form that we found that stays correct with one process per
file: events as msgspec structs with one decoder each, as in its own examples; a
projector that changes the aggregate in place; every aggregate in the cache, neither
copied nor fast-forwarded. Both keep a SQLite file in WAL mode at the default
``synchronous=FULL``, as Herdbook does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit
from uuid import UUID, uuid5

import msgspec
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import Mapper, StoredEvent
from eventsourcing.utils import get_topic

from benchmarks.dataset import CONTEXT, SIZE_BYTES, digest

SPACE = UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")
USABLE = frozenset({"available", "loaded"})


def id_of(name: str) -> UUID:
    """Return the id of a model's aggregate."""
    return uuid5(SPACE, name)


class PeerManager(Protocol):
    """The measured functions of the peer."""

    def discover(self, name: str) -> None: ...

    def use(self, name: str) -> None: ...

    def grow(self, name: str, rounds: int) -> None: ...

    def uses(self, name: str) -> int: ...

    def close(self) -> None: ...


class DefaultModel(Aggregate):
    @event("Discovered")
    def __init__(self, name: str, digest: str, size_bytes: int) -> None:
        self.name = name
        self.digest = digest
        self.size_bytes = size_bytes
        self.state = "available"
        self.uses = 0
        self.runner: dict[str, Any] | None = None
        self.instance = self.purpose = self.reason = ""
        self.load_s = 0.0

    @staticmethod
    def create_id(name: str) -> UUID:
        return id_of(name)

    @event("LoadStarted")
    def start_load(self, instance: str) -> None:
        self._ask("available")
        self.state, self.instance = "loading", instance

    @event("Loaded")
    def load(self, runner: dict[str, Any], duration_s: float) -> None:
        self._ask("loading", "available")
        self.state, self.runner = "loaded", runner
        self.load_s = duration_s

    @event("Used")
    def use(self, purpose: str) -> None:
        self._ask("available", "loaded")
        self.state, self.purpose = "loaded", purpose
        self.uses += 1

    @event("Unloaded")
    def unload(self, reason: str) -> None:
        self._ask("loaded")
        self.state, self.runner = "available", None
        self.reason = reason

    def _ask(self, *states: str) -> None:
        if self.state not in states:
            raise ValueError(self.state)


def _runner(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "digest": digest(name),
        "context_length": CONTEXT,
        "size_bytes": SIZE_BYTES,
        "size_vram_bytes": SIZE_BYTES,
    }


def _environment(path: Path) -> dict[str, str]:
    return {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(path)}


class _DefaultApplication(Application[UUID]):
    def discover(self, name: str) -> None:
        self.save(DefaultModel(name=name, digest=digest(name), size_bytes=SIZE_BYTES))

    def use(self, name: str) -> None:
        model = self._get(name)
        model.use(purpose="chat")
        self.save(model)

    def grow(self, name: str, rounds: int) -> None:
        model = self._get(name)
        for _ in range(rounds):
            model.start_load(instance="1")
            model.load(runner=_runner(name), duration_s=1.5)
            model.use(purpose="chat")
            model.unload(reason="expired")
        self.save(model)

    def uses(self, name: str) -> int:
        return self._get(name).uses

    def _get(self, name: str) -> DefaultModel:
        model: DefaultModel = self.repository.get(id_of(name))
        return model


def default_peer(path: Path) -> PeerManager:
    return _DefaultApplication(_environment(path))


class Event(msgspec.Struct, frozen=True, kw_only=True):
    originator_id: UUID
    originator_version: int
    timestamp: datetime


class Discovered(Event, frozen=True, kw_only=True):
    name: str
    digest: str
    size_bytes: int


class LoadStarted(Event, frozen=True, kw_only=True):
    instance: str


class Loaded(Event, frozen=True, kw_only=True):
    runner: dict[str, Any]
    duration_s: float


class Used(Event, frozen=True, kw_only=True):
    purpose: str


class Unloaded(Event, frozen=True, kw_only=True):
    reason: str


_EVENTS = (Discovered, LoadStarted, Loaded, Used, Unloaded)
_DECODERS = {get_topic(kind): msgspec.json.Decoder(kind).decode for kind in _EVENTS}
_TOPICS = {kind: get_topic(kind) for kind in _EVENTS}
_encode = msgspec.json.Encoder().encode


class StructMapper(Mapper[UUID]):
    def to_stored_event(self, domain_event: Any) -> StoredEvent:
        return StoredEvent(
            domain_event.originator_id,
            domain_event.originator_version,
            _TOPICS[type(domain_event)],
            _encode(domain_event),
        )

    def to_domain_event(self, stored_event: StoredEvent) -> Any:
        return _DECODERS[stored_event.topic](stored_event.state)


class TunedModel:
    __slots__ = ("id", "name", "pending", "runner", "state", "uses", "version")

    def __init__(self, started: Discovered) -> None:
        self.id = started.originator_id
        self.version = started.originator_version
        self.name = started.name
        self.state = "available"
        self.uses = 0
        self.runner: dict[str, Any] | None = None
        self.pending: list[Event] = []

    def collect_events(self) -> list[Event]:
        events, self.pending = self.pending, []
        return events

    def trigger(self, kind: type[Event], **values: Any) -> None:
        happened = kind(
            originator_id=self.id,
            originator_version=self.version + 1,
            timestamp=datetime.now(UTC),
            **values,
        )
        project(self, (happened,))
        self.pending.append(happened)


def _load_started(model: TunedModel, _: Any) -> None:
    model.state = "loading"


def _loaded(model: TunedModel, happened: Any) -> None:
    model.state, model.runner = "loaded", happened.runner


def _used(model: TunedModel, _: Any) -> None:
    model.state = "loaded"
    model.uses += 1


def _unloaded(model: TunedModel, _: Any) -> None:
    model.state, model.runner = "available", None


_EFFECTS: dict[type, Callable[[TunedModel, Any], None]] = {
    LoadStarted: _load_started,
    Loaded: _loaded,
    Used: _used,
    Unloaded: _unloaded,
}


def project(model: TunedModel | None, events: Iterable[Any]) -> TunedModel | None:
    for happened in events:
        if model is None:
            model = TunedModel(happened)
        else:
            _EFFECTS[type(happened)](model, happened)
            model.version = happened.originator_version
    return model


class _TunedApplication(Application[UUID]):
    def discover(self, name: str) -> None:
        started = Discovered(
            originator_id=id_of(name),
            originator_version=1,
            timestamp=datetime.now(UTC),
            name=name,
            digest=digest(name),
            size_bytes=SIZE_BYTES,
        )
        self.save(started)

    def use(self, name: str) -> None:
        model = self._get(name)
        if model.state not in USABLE:
            raise ValueError(model.state)
        model.trigger(Used, purpose="chat")
        self.save(model)

    def grow(self, name: str, rounds: int) -> None:
        model = self._get(name)
        for _ in range(rounds):
            model.trigger(LoadStarted, instance="1")
            model.trigger(Loaded, runner=_runner(name), duration_s=1.5)
            model.trigger(Used, purpose="chat")
            model.trigger(Unloaded, reason="expired")
        self.save(model)

    def uses(self, name: str) -> int:
        return self._get(name).uses

    def _get(self, name: str) -> TunedModel:
        model: TunedModel = self.repository.get(id_of(name), projector_func=project)
        return model


def tuned_peer(path: Path) -> PeerManager:
    return _tuned(_environment(path))


def tuned_peer_on_postgres(url: str, schema: str, *, creates: bool) -> PeerManager:
    """Open the peer on a server.

    Args:
        url: The server and its database.
        schema: The schema with its tables.
        creates: Whether to make the tables. Two that do at the same time fail at times:
            "tuple concurrently updated".
    """
    parts = urlsplit(url)
    return _tuned(
        {
            "PERSISTENCE_MODULE": "eventsourcing.postgres",
            "POSTGRES_HOST": parts.hostname or "",
            "POSTGRES_PORT": str(parts.port),
            "POSTGRES_USER": parts.username or "",
            "POSTGRES_PASSWORD": parts.password or "",
            "POSTGRES_DBNAME": parts.path.lstrip("/"),
            "POSTGRES_SCHEMA": schema,
            "POSTGRES_ENABLE_DB_FUNCTIONS": "y",
            "CREATE_TABLE": "y" if creates else "n",
        }
    )


def _tuned(environment: dict[str, str]) -> PeerManager:
    return _TunedApplication(
        {
            **environment,
            "MAPPER_TOPIC": get_topic(StructMapper),
            "AGGREGATE_CACHE_MAXSIZE": "0",  # without a limit
            "AGGREGATE_CACHE_FASTFORWARD": "n",
            "DEEPCOPY_FROM_AGGREGATE_CACHE": "n",
        }
    )
