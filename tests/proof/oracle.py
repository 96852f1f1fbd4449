"""What must hold whatever happened: asked of the files and of the sandbox itself.

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

ROOMS = ("/core/", "/events/", "/projections/")
"""Where our own tasks come from; those of the sandbox and of uvicorn do not."""


class Truth(NamedTuple):
    """What a model is on the server."""

    digest: str
    size_bytes: int
    loaded: bool


def truth_of(world: World) -> dict[str, Truth]:
    """Return what the server has, by name, read from its own store."""
    held = {runner.wanted.weights.digest for runner in world.runners.listed()}
    return {
        entry.name.display: Truth(
            entry.digest, entry.manifest.size, weights_digest(entry) in held
        )
        for entry, _ in world.store.listed()
    }


def weights_digest(entry: Entry) -> str:
    """Return the digest of a model's file of numbers."""
    layers = entry.manifest.layers
    return next(layer.digest for layer in layers if layer.kind is Kind.WEIGHTS)


def told_by(statuses: Iterable[ModelStatus]) -> dict[str, Truth]:
    """Return the same as the manager's statuses tell it."""
    return {
        status.name: Truth(
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
    """Return the views of a log, folded anew."""
    views = Views()
    await views.replay(store)
    return views


async def assert_sound(store: EventStore) -> None:
    """The log verifies."""
    verification = await verify(store)
    assert verification.findings == (), verification.findings


async def assert_live_is_replayed(manager: ModelManager) -> None:
    """The views that were kept are, byte by byte, those of a replay."""
    moment = await manager.now()
    views = await replayed(manager._storage.store)
    assert moment.position == views.position
    assert dumps(manager._repository.views) == dumps(views)


def our_tasks() -> set[asyncio.Task[object]]:
    """Return the tasks that run code of ours."""
    return {
        task
        for task in asyncio.all_tasks()
        if any(room in _source(task) for room in ROOMS)
        and "/tests/" not in _source(task)
    }


def _source(task: asyncio.Task[object]) -> str:
    code = getattr(task.get_coro(), "cr_code", None)
    return code.co_filename if code else ""


def assert_nothing_held(manager: ModelManager) -> None:
    """No lock is held, no place taken, nothing waits, nobody is left alone."""
    register, reconciler = manager._repository, manager._reconciler
    assert not any(lock.locked() for lock in register._locks.values())
    assert not register._reading.locked()
    assert not reconciler._refreshing.locked()
    assert not reconciler._changes.active
    assert manager._puller._slots._value == manager._settings.max_concurrent_pulls
    assert manager._pulls.all() == []
    assert manager._loads.all() == []


async def facts_after(manager: ModelManager, position: int, name: str) -> list[Fact]:
    """Return what was recorded about a model behind a position."""
    stream = manager._repository.stream(name)
    return [
        event.data
        async for event in manager._storage.store.read_all(
            after=position, stream_prefix=stream
        )
    ]
