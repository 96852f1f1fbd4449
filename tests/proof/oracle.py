"""Checks that must hold in any case, on the files and on the sandbox itself.

The oracle reads the sandbox server's store and runners, and shares no code with
Herdbook's own reading of a server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import NamedTuple

from herdbook.core import ModelManager, ModelState, ModelStatus
from herdbook.core.views import Views
from herdbook.events.facts import Fact
from herdbook.events.store import EventStore
from herdbook.events.verify import verify
from herdbook.sandbox import World
from herdbook.sandbox.models.artifacts import Kind
from herdbook.sandbox.models.store import Entry

PACKAGES = ("/core/", "/events/", "/projections/")
"""Folders of Herdbook's own code; the sandbox and uvicorn are not among them."""


class TrueModel(NamedTuple):
    """The true state of a model on the server."""

    digest: str
    size_bytes: int
    loaded: bool


def true_models(world: World) -> dict[str, TrueModel]:
    """Return the models of the server, by name, from its own store."""
    held = {runner.wanted.weights.digest for runner in world.runners.listed()}
    return {
        entry.name.display: TrueModel(
            entry.digest, entry.manifest.size, weights_digest(entry) in held
        )
        for entry, _ in world.store.listed()
    }


def weights_digest(entry: Entry) -> str:
    """Return the digest of a model's weights file."""
    layers = entry.manifest.layers
    return next(layer.digest for layer in layers if layer.kind is Kind.WEIGHTS)


def reported_models(statuses: Iterable[ModelStatus]) -> dict[str, TrueModel]:
    """Return the models as the statuses of the manager report them."""
    return {
        status.name: TrueModel(
            status.digest or "",
            status.size_bytes or 0,
            status.state is ModelState.LOADED,
        )
        for status in statuses
        if status.present
    }


def dumps(views: Views) -> tuple[bytes, bytes, bytes]:
    """Return the views as bytes."""
    return views.status.dump(), views.recommendation.dump(), views.statistics.dump()


async def replayed(store: EventStore) -> Views:
    """Return the views of a log, replayed from its start."""
    views = Views()
    await views.replay(store)
    return views


async def assert_sound(store: EventStore) -> None:
    """Assert that the log passes verification."""
    verification = await verify(store)
    assert verification.findings == (), verification.findings


async def assert_replay_equals_live(manager: ModelManager) -> None:
    """Assert that the live views equal those of a replay, byte for byte."""
    moment = await manager.now()
    views = await replayed(manager._storage.store)
    assert moment.position == views.position
    assert dumps(manager._repository.views) == dumps(views)


def herdbook_tasks() -> set[asyncio.Task[object]]:
    """Return the tasks that run Herdbook's code."""
    return {
        task
        for task in asyncio.all_tasks()
        if any(room in _source(task) for room in PACKAGES)
        and "/tests/" not in _source(task)
    }


def _source(task: asyncio.Task[object]) -> str:
    code = getattr(task.get_coro(), "cr_code", None)
    return code.co_filename if code else ""


def assert_nothing_held(manager: ModelManager) -> None:
    """Assert that no lock is held, no slot is in use and nothing waits."""
    register, reconciler = manager._repository, manager._reconciler
    assert not any(lock.locked() for lock in register._locks.values())
    assert register._live._is_read.is_set()
    assert not reconciler._refreshing.locked()
    assert not reconciler._changes.active
    assert manager._puller._slots._value == manager._settings.max_concurrent_pulls
    assert manager._pulls.all() == []
    assert manager._loads.all() == []


async def facts_after(manager: ModelManager, position: int, name: str) -> list[Fact]:
    """Return the facts of a model that were recorded after a position."""
    stream = manager._repository.stream(name)
    return [
        event.data
        async for event in manager._storage.store.read_all(
            after=position, stream_prefix=stream
        )
    ]
