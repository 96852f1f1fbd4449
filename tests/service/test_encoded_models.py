"""Cached JSON of models equals the JSON of their current status."""

from __future__ import annotations

import msgspec
from support.manager_fixture import serve_manager

from herdbook.core import Cause, ModelManager, ReadModel
from herdbook.events.facts import NodeLost
from herdbook.presentation import shapes
from herdbook.service.encoded_models import EncodedModels

NAME = "llava:7b"


async def assert_current(kept: EncodedModels, read_model: ReadModel) -> list[bytes]:
    """Assert that the kept JSON is that of a read model; return it."""
    fixed = read_model.fixed()
    encoded = [bytes(msgspec.json.encode(one)) for one in await kept.of(fixed)]
    expected = [
        msgspec.json.encode(shapes.model(status, fixed)) for status in fixed.statuses()
    ]
    assert encoded == expected
    return encoded


async def changed(kept: EncodedModels, manager: ModelManager) -> int:
    """Return how many models have other JSON than before; all must be current."""
    before = [one.json for one in kept._kept["local"].values()]
    await assert_current(kept, await manager.now())
    after = kept._kept["local"].values()
    return sum(all(one.json is not old for old in before) for one in after)


async def test_only_changed_models_are_encoded_again() -> None:
    async with serve_manager() as (_, manager):
        kept = EncodedModels()
        everything = len(await assert_current(kept, await manager.now()))
        assert everything > 2

        assert await changed(kept, manager) == 0
        await manager.mark_used(NAME)
        assert await changed(kept, manager) == 1
        await manager.configure(NAME, {"num_ctx": 1024})
        await manager.load(NAME)
        assert await changed(kept, manager) >= 1
        await manager.delete(NAME)
        assert await changed(kept, manager) >= 1
        assert await changed(kept, manager) == 0


async def test_models_of_a_lost_server_are_encoded_again() -> None:
    async with serve_manager() as (_, manager):
        kept = EncodedModels()
        before = await assert_current(kept, await manager.now())
        lost = NodeLost(kind="node_unreachable", message="gone")
        await manager._repository.record_node(lost, cause=Cause.OBSERVED)

        after = await assert_current(kept, await manager.now())

        assert all(one != other for one, other in zip(before, after, strict=True))


async def test_stale_times_are_not_cached() -> None:
    async with serve_manager() as (_, manager):
        kept, now = EncodedModels(), (await manager.now()).fixed()
        before = await assert_current(kept, now)
        since = now.node_status().since
        overdue = ReadModel(now._views, manager.registry, "local", overdue_since=since)

        during = await assert_current(kept, overdue)

        assert before != during
        assert await assert_current(kept, now) == before


async def test_models_of_removed_nodes_are_dropped() -> None:
    async with serve_manager() as (_, manager):
        kept = EncodedModels()
        await assert_current(kept, await manager.now())
        kept.forget_other_nodes({"local", "gpu1"})
        assert list(kept._kept) == ["local"]

        kept.forget_other_nodes({"gpu1"})

        assert not kept._kept
