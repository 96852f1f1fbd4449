"""Which model to use for a role, and what a use of it changes."""

from __future__ import annotations

import pytest
from support.manager_fixture import herd_of, last_fact, told

from herdbook.core import (
    IllegalTransitionError,
    ModelRole,
    ModelState,
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
async def test_recommendation_fits_the_role(role: ModelRole) -> None:
    async with herd_of() as (_, herd):
        await herd.mark_used(ROLES[role])

        chosen = await herd.recommend(role)

        assert chosen is not None
        assert chosen.name == ROLES[role]
        assert chosen.reasons


async def test_embedding_model_is_recommended_for_nothing_else() -> None:
    async with herd_of() as (_, herd):
        for role in ModelRole:
            names = {one.name for one in (await herd.explain(role)).chosen}
            assert ("nomic-embed-text:latest" in names) == (role == "embedding")


async def test_most_recently_used_model_is_recommended_first() -> None:
    async with herd_of() as (place, herd):
        for name in ("plain", BIG, "plain"):
            place.time.advance(1)
            await herd.mark_used(name)

        chosen = (await herd.explain("general")).chosen

        assert [one.name for one in chosen[:2]] == ["plain:latest", BIG]


async def test_loaded_model_is_recommended_before_an_available_one() -> None:
    async with herd_of() as (_, herd):
        await herd.load("codellama:7b")

        chosen = await herd.recommend("coding")

        assert chosen is not None
        assert (chosen.name, chosen.state) == ("codellama:7b", ModelState.LOADED)


async def test_model_that_vanished_is_not_recommended() -> None:
    async with herd_of() as (place, herd):
        await place.deletes(NAME)
        await herd.refresh()

        assert await herd.recommend("vision") is None


async def test_model_in_error_is_passed_over_with_a_reason() -> None:
    async with herd_of() as (place, herd):
        place.did(runner_dies_saying="out of memory")
        with pytest.raises(Exception, match="memory"):
            await herd.load(NAME)

        explained = await herd.explain("vision")

        assert NAME not in [one.name for one in explained.chosen]
        (passed,) = [one for one in explained.passed_over if one.name == NAME]
        assert any("error" in reason for reason in passed.reasons)


async def test_suggestions_leave_out_what_is_there() -> None:
    async with herd_of() as (_, herd):
        everything = herd.registry.suggest("vision")
        there = [one.name for one in await herd.all_statuses()]

        suggested = await herd.suggest("vision", memory_bytes=None)

        assert suggested == herd.registry.suggest("vision", present=there)
        assert len(suggested) < len(everything)


async def test_use_is_recorded_with_its_purpose_and_makes_it_loaded() -> None:
    async with herd_of() as (place, herd):
        status = await herd.mark_used(NAME, purpose="a photo")

        used = await last_fact(herd, facts.ModelUsed)
        assert used == facts.ModelUsed(purpose="a photo")
        assert (status.uses, status.last_used_at) == (1, place.clock.now())
        assert status.state is ModelState.LOADED


async def test_use_that_no_runner_confirms_is_corrected_by_the_next_look() -> None:
    async with herd_of() as (_, herd):
        await herd.mark_used(NAME)

        await herd.refresh()

        assert (await told(herd, NAME))[-2:] == ["ModelUsed", "ModelUnloaded"]


async def test_model_in_error_cannot_have_been_used() -> None:
    async with herd_of() as (place, herd):
        place.did(runner_dies_saying="out of memory")
        with pytest.raises(Exception, match="memory"):
            await herd.load(NAME)

        with pytest.raises(IllegalTransitionError):
            await herd.mark_used(NAME)
