"""A desired set over several nodes."""

from __future__ import annotations

import tomllib
from contextlib import aclosing
from typing import Any

import pytest
from support.fleet_fixture import serve_fleet

from herdbook.core import Fleet, InvalidDesiredError, NoPlaceError
from herdbook.core.desired import desired
from herdbook.core.desired.desired import DesiredSet
from herdbook.core.desired.plan import PullStep
from herdbook.core.fleet.desired_nodes import NodePlan
from herdbook.events.facts import NodeSettings

MODEL, OTHER = "llama3.2:1b", "qwen3:0.6b"


def wanted(**models: dict[str, Any]) -> DesiredSet:
    names = {"model": MODEL, "other": OTHER}
    return desired.parse({"models": {names[key]: t for key, t in models.items()}})


def steps(plans: list[NodePlan]) -> dict[str, list[str]]:
    return {
        each.node: [
            f"{type(step).__name__.removesuffix('Step').lower()} {step.name}"
            for step in each.plan.steps
        ]
        for each in plans
        if each.plan.steps
    }


async def applied(fleet: Fleet, plans: list[NodePlan]) -> None:
    for each in plans:
        async with aclosing(fleet.manager(each.node).apply(each.plan)) as progress:
            async for _ in progress:
                pass


async def test_models_go_to_the_nodes_and_tags_that_they_name() -> None:
    async with serve_fleet(local="none", gpu1="none", gpu2="none") as (_, fleet):
        await fleet.configure("gpu2", NodeSettings(tags={"zone": "b"}))
        chosen = wanted(
            model={"nodes": ["gpu*"], "loaded": True}, other={"tags": {"zone": "b"}}
        )

        plans = await fleet.plan(chosen)

        assert steps(plans) == {
            "gpu1": [f"pull {MODEL}", f"load {MODEL}"],
            "gpu2": [f"pull {MODEL}", f"pull {OTHER}", f"load {MODEL}"],
        }
        await applied(fleet, plans)
        assert await fleet.on_which(MODEL) == ["gpu1", "gpu2"]
        assert await fleet.on_which(OTHER) == ["gpu2"]
        assert steps(await fleet.plan(chosen)) == {}


async def test_size_of_a_pull_is_that_of_the_model_on_another_node() -> None:
    async with serve_fleet(local="none", gpu1="none") as (_, fleet):
        (there,) = await fleet.ensure_available(OTHER, "local")
        plans = await fleet.plan(wanted(other={"nodes": ["gpu1"]}))

        assert steps(plans) == {"gpu1": [f"pull {OTHER}"]}
        (pull,) = (step for each in plans for step in each.plan.steps)
        assert isinstance(pull, PullStep)
        assert pull.size_bytes == there.size_bytes


async def test_other_models_stay_where_they_are_or_go_to_one_place() -> None:
    async with serve_fleet(local="none", gpu1="none") as (servers, fleet):
        await fleet.configure("gpu1", NodeSettings(tags={"ram": "64GB"}))
        await servers["local"].pull(MODEL)
        await fleet.manager("local").refresh()

        plans = await fleet.plan(wanted(model={"num_ctx": 4096}, other={}))

        assert steps(plans) == {
            "gpu1": [f"pull {OTHER}"],
            "local": [f"configure {MODEL}"],
        }


async def test_pruning_deletes_what_is_not_meant_for_a_node() -> None:
    async with serve_fleet(local="none", gpu1="none") as (servers, fleet):
        for name in ("local", "gpu1"):
            await servers[name].pull(MODEL)
            await fleet.manager(name).refresh()

        plans = await fleet.plan(wanted(model={"nodes": ["gpu1"]}), prune=True)

        assert steps(plans) == {"local": [f"delete {MODEL}"]}
        (local,) = [each.plan for each in plans if each.node == "local"]
        assert local.frees_bytes > 10**9


async def test_set_that_fits_no_node_changes_nothing() -> None:
    async with serve_fleet(local="none", gpu1="none") as (_, fleet):
        with pytest.raises(InvalidDesiredError, match="no node matches gpu9"):
            await fleet.plan(wanted(model={"nodes": ["gpu9"]}, other={}))
        await fleet.configure("gpu1", NodeSettings(models=("qwen*",)))
        with pytest.raises(NoPlaceError, match=r"gpu1 accepts only qwen\*"):
            await fleet.plan(wanted(model={"nodes": ["gpu1"]}))
        assert await fleet.statuses() == []


@pytest.mark.parametrize(
    "table", [{"nodes": "gpu1"}, {"nodes": [1]}, {"tags": ["a"]}, {"tags": {"a": 1}}]
)
def test_invalid_nodes_are_an_error_of_the_file(table: dict[str, Any]) -> None:
    with pytest.raises(InvalidDesiredError, match=r"must be a (list|table) of"):
        wanted(model=table)


def test_nodes_are_written_to_a_file_as_they_are_read() -> None:
    chosen = wanted(model={"nodes": ["gpu*", "a"], "tags": {"zone": "b", "x y": "1"}})
    text = desired.toml_text(chosen)
    assert desired.parse(tomllib.loads(text)) == chosen


async def test_frozen_set_of_several_nodes_leads_back_to_them() -> None:
    async with serve_fleet(local="some", gpu1="some", gpu2="none") as (_, fleet):
        model = (await fleet.statuses())[0].name
        await fleet.manager("gpu1").load(model)

        frozen = await fleet.freeze()

        assert {each.nodes for each in frozen.models} == {("gpu1", "local")}
        (chosen,) = (each for each in frozen.models if each.name == model)
        assert chosen.loaded is None, "in memory on one of them only"
        document = tomllib.loads(desired.toml_text(frozen))
        assert steps(await fleet.plan(desired.parse(document))) == {}

        await fleet.manager("gpu1").configure(model, {"num_ctx": 2048})
        with pytest.raises(InvalidDesiredError, match="has different settings on"):
            await fleet.freeze()
