"""Which model to use for a role, and what a use of it changes."""

from __future__ import annotations

import pytest
from support.manager_fixture import event_types, last_fact, serve_manager

from herdbook.core import (
    IllegalTransitionError,
    ModelRole,
    ModelState,
    UnknownRoleError,
)
from herdbook.events import facts

NAME = "llava:7b"
BIG = "llama3.2:1b"
ROLES = {
    ModelRole.GENERAL: "qwen3:0.6b",
    ModelRole.CODING: "codellama:7b",
    ModelRole.FAST: BIG,
    ModelRole.TOOL_USE: "qwen3:0.6b",
    ModelRole.VISION: NAME,
    ModelRole.EMBEDDING: "nomic-embed-text:latest",
    ModelRole.THINKING: "qwen3:0.6b",
}


@pytest.mark.parametrize("role", ROLES)
async def test_recommended_model_fits_the_role(role: ModelRole) -> None:
    async with serve_manager() as (_, manager):
        await manager.mark_used(ROLES[role])

        chosen = await manager.recommend(role)

        assert chosen is not None
        assert chosen.name == ROLES[role]
        assert chosen.reasons


async def test_embedding_model_is_recommended_for_nothing_else() -> None:
    async with serve_manager() as (_, manager):
        for role in ModelRole:
            names = {one.name for one in (await manager.explain(role)).chosen}
            assert ("nomic-embed-text:latest" in names) == (role == "embedding")


async def test_most_recently_used_model_is_recommended_first() -> None:
    async with serve_manager() as (server, manager):
        for name in ("plain", BIG, "plain"):
            server.time.advance(1)
            await manager.mark_used(name)

        chosen = (await manager.explain("general")).chosen

        assert [one.name for one in chosen[:2]] == ["plain:latest", BIG]


async def test_loaded_model_is_recommended_before_an_available_one() -> None:
    async with serve_manager() as (_, manager):
        await manager.load("codellama:7b")

        chosen = await manager.recommend("coding")

        assert chosen is not None
        assert (chosen.name, chosen.state) == ("codellama:7b", ModelState.LOADED)


async def test_model_that_vanished_is_not_recommended() -> None:
    async with serve_manager() as (server, manager):
        await server.delete(NAME)
        await manager.refresh()

        assert await manager.recommend("vision") is None


async def test_model_in_error_is_passed_over_with_a_reason() -> None:
    async with serve_manager() as (server, manager):
        server.apply(runner_dies_saying="out of memory")
        with pytest.raises(Exception, match="memory"):
            await manager.load(NAME)

        explained = await manager.explain("vision")

        assert NAME not in [one.name for one in explained.chosen]
        (passed,) = [one for one in explained.passed_over if one.name == NAME]
        assert any("failed" in reason for reason in passed.reasons)


async def test_suggestions_exclude_present_models() -> None:
    async with serve_manager() as (_, manager):
        everything = manager.registry.suggest("vision")
        there = [one.name for one in await manager.all_statuses()]

        suggested = await manager.suggest("vision", memory_bytes=None)

        assert suggested == manager.registry.suggest("vision", present=there)
        assert len(suggested) < len(everything)


async def test_previously_used_model_is_suggested_first() -> None:
    async with serve_manager() as (_, manager):
        await manager.mark_used(NAME)
        await manager.delete(NAME)

        first, *_ = await manager.suggest("vision")

        assert NAME in (first.pull, f"{first.pull}:7b")
        assert first.reason.startswith("used before; ")


async def test_use_is_recorded_with_its_purpose_and_implies_loaded() -> None:
    async with serve_manager() as (server, manager):
        status = await manager.mark_used(NAME, purpose="a photo")

        used = await last_fact(manager, facts.ModelUsed)
        assert used == facts.ModelUsed(purpose="a photo")
        assert (status.uses, status.last_used_at) == (1, server.clock.now())
        assert status.state is ModelState.LOADED


async def test_use_for_a_role_is_recorded_and_counts_for_it() -> None:
    async with serve_manager() as (_, manager):
        await manager.mark_used(NAME, role="Vision")

        used = await last_fact(manager, facts.ModelUsed)
        assert used == facts.ModelUsed(role="vision")
        best = await manager.recommend("vision")
        assert best is not None
        assert (best.name, best.reasons[0]) == (NAME, "used for the vision role")
        with pytest.raises(UnknownRoleError):
            await manager.mark_used(NAME, role="poetry")


async def test_use_without_a_runner_is_corrected_by_the_next_refresh() -> None:
    async with serve_manager() as (_, manager):
        await manager.mark_used(NAME)

        await manager.refresh()

        assert (await event_types(manager, NAME))[-2:] == ["ModelUsed", "ModelUnloaded"]


async def test_model_in_error_cannot_have_been_used() -> None:
    async with serve_manager() as (server, manager):
        server.apply(runner_dies_saying="out of memory")
        with pytest.raises(Exception, match="memory"):
            await manager.load(NAME)

        with pytest.raises(IllegalTransitionError):
            await manager.mark_used(NAME)
