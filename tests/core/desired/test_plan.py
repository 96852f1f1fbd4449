"""Plans: their steps with sizes, run in order; a second plan is empty."""

from __future__ import annotations

from contextlib import aclosing

import pytest
from support.manager_fixture import event_types, serve_manager

from herdbook.core import (
    CloudModelError,
    HerdbookError,
    ModelManager,
    ModelState,
    NodeUnreachableError,
)
from herdbook.core.desired.desired import DesiredSet, parse
from herdbook.core.desired.plan import (
    ConfigureStep,
    DeleteStep,
    LoadStep,
    Plan,
    PlanProgress,
    PullStep,
    UnloadStep,
)
from herdbook.core.errors import InvalidDesiredError

PRESENT = (
    "codellama:7b",
    "llama3.1:8b",
    "llama3.2:1b",
    "llava:7b",
    "nomic-embed-text:latest",
    "plain:latest",
    "qwen3:0.6b",
    "update-me:latest",
    "update-me:v2",
)


def wanted(*names: str, **models: dict[str, object]) -> DesiredSet:
    return parse({"models": {**{name: {} for name in names}, **models}})


async def applied(manager: ModelManager, plan: Plan) -> list[PlanProgress]:
    async with aclosing(manager.apply(plan)) as updates:
        return [each async for each in updates]


async def test_plan_for_the_current_state_is_empty() -> None:
    async with serve_manager() as (_, manager):
        await manager.configure("plain", {"num_ctx": 1024, "options.stop": ["</s>"]})
        await manager.load("plain")

        assert (await manager.plan(await manager.freeze(), prune=True)).steps == ()


async def test_plan_pulls_absent_models_with_catalogue_sizes() -> None:
    async with serve_manager() as (_, manager):
        plan = await manager.plan(wanted("gpt-oss:20b", "tinyllama:1.1b"))

    known = manager.registry.find("gpt-oss:20b")
    assert known is not None
    assert plan.steps == (
        PullStep(name="gpt-oss:20b", size_bytes=known.download_bytes),
        PullStep(name="tinyllama:1.1b", size_bytes=None),
    )
    assert plan.fetch_bytes == known.download_bytes
    assert plan.unknown_sizes == 1


async def test_plan_deletes_nothing_by_default() -> None:
    async with serve_manager() as (_, manager):
        assert (await manager.plan(wanted())).steps == ()


async def test_last_deletion_of_shared_weights_frees_their_bytes() -> None:
    async with serve_manager() as (_, manager):
        gone = {"llama3.2:1b", "plain:latest", "update-me:latest", "update-me:v2"}
        kept = [name for name in PRESENT if name not in gone]
        plan = await manager.plan(wanted(*kept), prune=True)
        sizes = [(await manager.get_status(name)).size_bytes for name in gone]

    shared = {step.name: step.shared_with for step in plan.deletes}
    assert shared == {
        "llama3.2:1b": ("plain:latest", "update-me:latest", "update-me:v2"),
        "plain:latest": ("update-me:latest", "update-me:v2"),
        "update-me:latest": ("update-me:v2",),
        "update-me:v2": (),
    }
    assert plan.frees_bytes == max(size for size in sizes if size is not None)


async def test_unnamed_settings_are_kept() -> None:
    async with serve_manager() as (_, manager):
        await manager.configure("plain", {"num_ctx": 1024, "pinned": True})
        plan = await manager.plan(
            wanted(plain={"num_ctx": 2048, "note": "longer files"})
        )

    assert plan.steps == (
        ConfigureStep(
            name="plain:latest",
            set={"num_ctx": 2048},
            unset=(),
            was={"num_ctx": 1024},
            note="longer files",
        ),
    )


async def test_unnamed_settings_are_unset_with_prune() -> None:
    async with serve_manager() as (_, manager):
        await manager.configure("plain", {"num_ctx": 1024, "pinned": True})
        plan = await manager.plan(wanted(plain={"num_ctx": 1024}), prune=True)

    configure = plan.steps[0]
    assert isinstance(configure, ConfigureStep)
    assert (configure.set, configure.unset) == ({}, ("pinned",))


async def test_memory_is_unchanged_unless_named() -> None:
    async with serve_manager() as (_, manager):
        await manager.load("plain")

        assert (await manager.plan(wanted("plain", "llava:7b"))).steps == ()


async def test_unwanted_weights_are_unloaded_once() -> None:
    async with serve_manager() as (_, manager):
        loaded = await manager.load("plain")
        out = {"loaded": False}
        desired = parse({"models": {"plain": out, "llama3.2:1b": {}, "llava:7b": out}})
        plan = await manager.plan(desired)
        await applied(manager, plan)
        after = await manager.get_status("plain")

    assert loaded.runner is not None
    memory = loaded.runner.size_bytes
    assert plan.steps == (UnloadStep(name="plain:latest", memory_bytes=memory),)
    assert after.state is ModelState.AVAILABLE


async def test_same_weights_cannot_be_both_loaded_and_unloaded() -> None:
    async with serve_manager() as (_, manager):
        desired = parse(
            {"models": {"plain": {"loaded": True}, "update-me": {"loaded": False}}}
        )
        with pytest.raises(InvalidDesiredError, match="share their weights"):
            await manager.plan(desired)


async def test_plan_requires_the_server() -> None:
    async with serve_manager() as (server, manager):
        server.apply(server="killed")

        with pytest.raises(NodeUnreachableError):
            await manager.plan(wanted("plain"), prune=True)


async def test_second_plan_after_applying_is_empty() -> None:
    desired = parse(
        {
            "models": {
                "plain": {"loaded": True, "num_ctx": 1024, "note": "short"},
                "smollm2:135m": {"pinned": True},
            }
        }
    )
    async with serve_manager() as (server, manager):
        plan = await manager.plan(desired, prune=True)
        telling = await applied(manager, plan)

        assert (await manager.plan(desired, prune=True)).steps == ()
        assert [each.step for each in telling if each.done] == [*plan.steps]
        assert not server.has_model("llava:7b")
        assert (await manager.get_status("plain")).context_in_effect == 1024


async def test_plan_deletes_only_after_everything_else() -> None:
    desired = parse({"models": {"smollm2:135m": {"loaded": True, "pinned": True}}})
    async with serve_manager() as (_, manager):
        plan = await manager.plan(desired, prune=True)

    kinds = list(dict.fromkeys(type(step) for step in plan.steps))
    assert kinds == [PullStep, ConfigureStep, DeleteStep, LoadStep]


async def test_pull_step_yields_progress() -> None:
    async with serve_manager() as (_, manager):
        telling = await applied(manager, await manager.plan(wanted("smollm2:135m")))

    assert any(each.progress and each.progress.percent for each in telling)


async def test_failure_skips_the_remaining_steps() -> None:
    desired = parse({"models": {"no-such:1b": {}, "plain": {"num_ctx": 1024}}})
    done = []
    async with serve_manager() as (_, manager):
        plan = await manager.plan(desired, prune=True)
        with pytest.raises(HerdbookError):
            async with aclosing(manager.apply(plan)) as telling:
                done += [each.step async for each in telling if each.done]
        after = await manager.get_status("plain")

    assert done == []
    assert after.settings == {}


async def test_steps_done_by_others_are_not_repeated() -> None:
    desired = parse({"models": {"smollm2:135m": {}, "plain": {"loaded": True}}})
    async with serve_manager() as (server, manager):
        plan = await manager.plan(desired, prune=True)
        await server.pull("smollm2:135m")
        await server.load("plain")
        await server.delete("llava:7b")
        await manager.refresh()
        await applied(manager, plan)

        assert "UpdateStarted" not in await event_types(manager, "smollm2:135m")
        assert "LoadStarted" not in await event_types(manager, "plain:latest")
        assert "ModelDeleted" not in await event_types(manager, "llava:7b")


async def test_cloud_model_cannot_be_desired_as_loaded() -> None:
    async with serve_manager() as (server, manager):
        await server.request(
            "POST",
            "/api/create",
            model="far:cloud",
            remote_host="https://ollama.com",
            **{"from": "gpt-oss:120b"},
        )
        with pytest.raises(CloudModelError):
            await manager.plan(parse({"models": {"far:cloud": {"loaded": True}}}))
