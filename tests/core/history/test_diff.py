"""What differs between two moments: per model, per role, and of the server."""

from __future__ import annotations

import pytest
from support.manager_fixture import herd_of

from herdbook.core import CallerError, ModelRole
from herdbook.core.history.diff import Change, Difference, ModelDifference, Presence


def of(found: Difference, name: str) -> dict[str, tuple[object, object]]:
    """Return the changes of a model: by fact, what it was and is."""
    model = next(model for model in found.models if model.name == name)
    return {change.fact: (change.was, change.now) for change in model.changes}


async def test_moment_does_not_differ_from_itself() -> None:
    async with herd_of() as (_, herd):
        here = (await herd.now()).position
        found = await herd.diff(here)

    assert found == Difference(since=here, until=here, node=(), models=(), roles=())


async def test_setting_differs_alone() -> None:
    async with herd_of() as (_, herd):
        here = (await herd.now()).position
        await herd.configure("plain", {"num_ctx": 1024})
        found = await herd.diff(here)

    change = Change(fact="settings.num_ctx", was=None, now=1024)
    assert found.models == (
        ModelDifference(
            name="plain:latest", presence=Presence.STAYED, changes=(change,)
        ),
    )


async def test_load_differs_in_state_and_runner() -> None:
    async with herd_of() as (_, herd):
        here = (await herd.now()).position
        await herd.load("qwen3:0.6b", options={"num_ctx": 2048})
        found = of(await herd.diff(here), "qwen3:0.6b")

    assert found["state"] == ("available", "loaded")
    assert found["runner.context_length"] == (None, 2048)
    assert found["runner.name"] == (None, "qwen3:0.6b")


async def test_model_appears_and_vanishes() -> None:
    async with herd_of() as (place, herd):
        here = (await herd.now()).position
        await place.pulls("smollm2:135m")
        await place.deletes("llava:7b")
        await herd.refresh()
        found = await herd.diff(here)

    presences = {model.name: model.presence for model in found.models}
    assert presences == {
        "llava:7b": Presence.VANISHED,
        "smollm2:135m": Presence.APPEARED,
    }
    assert of(found, "smollm2:135m")["capabilities.completion"] == (None, True)
    assert of(found, "llava:7b")["state"] == ("available", "not_present")


async def test_role_differs_where_its_first_choice_does() -> None:
    async with herd_of() as (_, herd):
        before = await herd.recommend(ModelRole.VISION)
        here = (await herd.now()).position
        await herd.delete("llava:7b")
        found = await herd.diff(here)

    vision = next(role for role in found.roles if role.role is ModelRole.VISION)
    assert before is not None
    assert (vision.was, vision.now) == ("llava:7b", None)


async def test_server_that_went_away_differs() -> None:
    async with herd_of() as (place, herd):
        here = (await herd.now()).position
        place.did(server="killed")
        with pytest.raises(Exception, match="cannot be reached"):
            await herd.refresh()
        found = await herd.diff(here)

    assert found.node == (Change(fact="reached", was=True, now=False),)


async def test_two_times_are_compared() -> None:
    async with herd_of() as (place, herd):
        before = place.clock.now()
        await place.clock.sleep(60)
        await herd.configure("plain", {"pinned": True})
        await place.clock.sleep(60)
        found = await herd.diff(before, place.clock.now())

    assert of(found, "plain:latest") == {"settings.pinned": (None, True)}


async def test_difference_can_be_read_backwards() -> None:
    async with herd_of() as (_, herd):
        here = (await herd.now()).position
        await herd.configure("plain", {"pinned": True})
        found = await herd.diff(here + 1, here)

    assert of(found, "plain:latest") == {"settings.pinned": (True, None)}


async def test_position_behind_the_end_is_refused() -> None:
    async with herd_of() as (_, herd):
        with pytest.raises(CallerError, match="is not in the log"):
            await herd.diff(1, 10_000)
