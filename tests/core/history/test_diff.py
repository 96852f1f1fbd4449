"""The differences between two times: by model, by role, and of the server."""

from __future__ import annotations

import pytest
from support.manager_fixture import serve_manager

from herdbook.core import CallerError, ModelRole
from herdbook.core.history.diff import Change, Difference, ModelDifference, Presence


def of(found: Difference, name: str) -> dict[str, tuple[object, object]]:
    """Return the changes of a model: by fact, what it was and is."""
    model = next(model for model in found.models if model.name == name)
    return {change.fact: (change.was, change.now) for change in model.changes}


async def test_read_model_equals_itself() -> None:
    async with serve_manager() as (_, manager):
        here = (await manager.now()).position
        found = await manager.diff(here)

    assert found == Difference(since=here, until=here, node=(), models=(), roles=())


async def test_only_the_changed_setting_differs() -> None:
    async with serve_manager() as (_, manager):
        here = (await manager.now()).position
        await manager.configure("plain", {"num_ctx": 1024})
        found = await manager.diff(here)

    change = Change(fact="settings.num_ctx", was=None, now=1024)
    assert found.models == (
        ModelDifference(
            name="plain:latest", presence=Presence.STAYED, changes=(change,)
        ),
    )


async def test_load_differs_in_state_and_runner() -> None:
    async with serve_manager() as (_, manager):
        here = (await manager.now()).position
        await manager.load("qwen3:0.6b", options={"num_ctx": 2048})
        found = of(await manager.diff(here), "qwen3:0.6b")

    assert found["state"] == ("available", "loaded")
    assert found["runner.context_length"] == (None, 2048)
    assert found["runner.name"] == (None, "qwen3:0.6b")


async def test_model_appears_and_vanishes() -> None:
    async with serve_manager() as (server, manager):
        here = (await manager.now()).position
        await server.pull("smollm2:135m")
        await server.delete("llava:7b")
        await manager.refresh()
        found = await manager.diff(here)

    presences = {model.name: model.presence for model in found.models}
    assert presences == {
        "llava:7b": Presence.VANISHED,
        "smollm2:135m": Presence.APPEARED,
    }
    assert of(found, "smollm2:135m")["capabilities.completion"] == (None, True)
    assert of(found, "llava:7b")["state"] == ("available", "not_present")


async def test_role_differs_if_its_first_choice_differs() -> None:
    async with serve_manager() as (_, manager):
        before = await manager.recommend(ModelRole.VISION)
        here = (await manager.now()).position
        await manager.delete("llava:7b")
        found = await manager.diff(here)

    vision = next(role for role in found.roles if role.role is ModelRole.VISION)
    assert before is not None
    assert (vision.was, vision.now) == ("llava:7b", None)


async def test_lost_server_is_a_difference() -> None:
    async with serve_manager() as (server, manager):
        here = (await manager.now()).position
        server.apply(server="killed")
        with pytest.raises(Exception, match="cannot be reached"):
            await manager.refresh()
        found = await manager.diff(here)

    assert found.node == (Change(fact="reached", was=True, now=False),)


async def test_two_times_can_be_compared() -> None:
    async with serve_manager() as (server, manager):
        before = server.clock.now()
        await server.clock.sleep(60)
        await manager.configure("plain", {"pinned": True})
        await server.clock.sleep(60)
        found = await manager.diff(before, server.clock.now())

    assert of(found, "plain:latest") == {"settings.pinned": (None, True)}


async def test_difference_can_be_read_backwards() -> None:
    async with serve_manager() as (_, manager):
        here = (await manager.now()).position
        await manager.configure("plain", {"pinned": True})
        found = await manager.diff(here + 1, here)

    assert of(found, "plain:latest") == {"settings.pinned": (True, None)}


async def test_position_after_the_end_is_refused() -> None:
    async with serve_manager() as (_, manager):
        with pytest.raises(CallerError, match="does not exist"):
            await manager.diff(1, 10_000)
