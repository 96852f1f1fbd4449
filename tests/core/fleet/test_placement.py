"""Which node answers, and which one gets a new model."""

from __future__ import annotations

import pytest
from support.fleet_fixture import Sandboxes, serve_fleet, serve_sandboxes

from herdbook.core import (
    Cause,
    Fleet,
    NodeUnreachableError,
    NoPlaceError,
    OllamaError,
    UnknownNodeError,
)
from herdbook.core.fleet import placement
from herdbook.core.fleet.placement import Readiness
from herdbook.events.facts import NodeSettings, ReloadStarted

MODEL = "llama3.2:1b"


@pytest.mark.parametrize(
    ("tags", "capacity"),
    [
        ({}, None),
        ({"ram": "64GB"}, 64_000_000_000),
        ({"ram": "64GB", "vram": "24 GB"}, 24_000_000_000),
        ({"ram": "much"}, None),
        ({"vram": "?", "ram": "8GB"}, 8_000_000_000),
    ],
)
def test_tags_declare_the_memory_of_a_node(
    tags: dict[str, str], capacity: int | None
) -> None:
    assert placement.capacity(NodeSettings(tags=tags)) == capacity


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (NodeSettings(), ""),
        (NodeSettings(drained=True), "is drained"),
        (NodeSettings(models=("qwen*",)), "accepts only qwen*"),
        (NodeSettings(models=("llama*", "qwen*")), ""),
        (NodeSettings(max_model_bytes=10**9), "accepts only models up to 1.0 GB"),
        (NodeSettings(max_model_bytes=10**10), ""),
    ],
)
def test_restrictions_of_a_node_are_hard(settings: NodeSettings, says: str) -> None:
    assert placement.refusal(settings, MODEL, 2 * 10**9) == says


async def nodes_of(fleet: Fleet, model: str = MODEL) -> list[str]:
    """Return the nodes that have a model, the best first."""
    return [place.node for place in placement.places_of(model, await fleet.views())]


async def with_model(servers: Sandboxes, fleet: Fleet, *nodes: str) -> None:
    """Let some nodes have the model."""
    for node in nodes:
        await servers[node].pull(MODEL)
        await fleet.manager(node).refresh()


async def test_loaded_models_come_first_and_idle_ones_before_busy_ones() -> None:
    async with serve_fleet(a="none", b="none", local="none") as (servers, fleet):
        await with_model(servers, fleet, "a", "b", "local")
        assert await nodes_of(fleet) == ["a", "b", "local"]

        await servers["local"].load(MODEL)
        await servers["b"].load(MODEL)
        for manager in fleet.managers():
            await manager.refresh()
        assert await nodes_of(fleet) == ["b", "local", "a"]

        views = await fleet.views({"b": {MODEL: 1}})
        places = placement.places_of(MODEL, views)
        assert [(one.node, one.readiness) for one in places] == [
            ("local", Readiness.IDLE),
            ("b", Readiness.BUSY),
            ("a", Readiness.ON_DISK),
        ]
        assert places[1].reasons == ("loaded on b", "1 request there")

        begun = ReloadStarted(instance="another")
        repository = fleet.manager("b")._repository
        await repository.record(MODEL, [begun], cause=Cause.COMMAND)
        assert await nodes_of(fleet) == ["local", "b", "a"]


async def test_free_memory_decides_between_nodes_that_must_load() -> None:
    async with serve_fleet(local="none", a="none", b="none") as (servers, fleet):
        await with_model(servers, fleet, "a", "b", "local")
        await fleet.configure("a", NodeSettings(tags={"ram": "8GB"}))
        await fleet.configure("b", NodeSettings(tags={"ram": "64GB"}))
        assert await nodes_of(fleet) == ["b", "a", "local"]

        await fleet.configure("a", NodeSettings(prefer=("llama*",)))
        assert await nodes_of(fleet) == ["a", "b", "local"]

        await fleet.configure("a", NodeSettings(drained=True))
        assert await nodes_of(fleet) == ["b", "local"]


async def test_requests_are_shared_out_by_weight() -> None:
    async with serve_fleet(local="none", a="none") as (servers, fleet):
        await with_model(servers, fleet, "a", "local")
        await fleet.configure("a", NodeSettings(weight=3))
        busy = {"a": {"x": 2}, "local": {"x": 1}}
        places = placement.places_of(MODEL, await fleet.views(busy))
        assert [place.node for place in places] == ["a", "local"]


async def test_node_that_does_not_answer_comes_last() -> None:
    async with serve_fleet(a="none", local="none") as (servers, fleet):
        await with_model(servers, fleet, "a", "local")
        servers["a"].apply(server="killed")
        with pytest.raises(NodeUnreachableError):
            await fleet.manager("a").refresh()
        assert await nodes_of(fleet) == ["local", "a"]
        (lost,) = [one for one in await fleet.places("general") if one.node == "a"]
        assert lost.reasons[0] == "was available on a, which does not answer"


async def test_recommendation_names_model_and_node() -> None:
    async with serve_fleet(local="herd", a="none") as (servers, fleet):
        best = (await fleet.manager("local").recommend("coding")).name  # type: ignore[union-attr]
        place = await fleet.recommend("coding")
        assert place is not None
        assert (place.node, place.model) == ("local", best)

        await servers["a"].pull(best)
        await servers["a"].load(best)
        await fleet.manager("a").refresh()
        place = await fleet.recommend("coding")
        assert place is not None
        assert (place.node, place.model) == ("a", best)
        assert place.reasons[0] == "loaded and idle on a"


async def test_model_is_made_available_on_one_node_on_a_named_one_or_on_all() -> None:
    async with serve_fleet(local="none", a="none", b="none") as (_, fleet):
        await fleet.configure("b", NodeSettings(tags={"ram": "64GB"}))
        await fleet.configure("a", NodeSettings(models=("qwen*",)))

        (status,) = await fleet.ensure_available(MODEL)
        assert (status.node, status.present) == ("b", True)
        (again,) = await fleet.ensure_available(MODEL)
        assert again.node == "b"

        everywhere = await fleet.ensure_available(MODEL, "all")
        assert [one.node for one in everywhere] == ["b", "local"]

        (named,) = await fleet.ensure_available(MODEL, "a")
        assert (named.node, named.present) == ("a", True)
        with pytest.raises(UnknownNodeError):
            await fleet.ensure_available(MODEL, "c")


async def test_model_on_a_lost_node_is_made_available_on_another_one() -> None:
    async with serve_fleet(local="none", a="none", b="none") as (servers, fleet):
        await fleet.ensure_available(MODEL, "a")
        servers["a"].apply(server="killed")
        with pytest.raises(OllamaError):
            await fleet.manager("a").refresh()

        (status,) = await fleet.ensure_available(MODEL)
        assert (status.node, status.present) == ("b", True)

        with pytest.raises(OllamaError):  # all is all, though the others have it now
            await fleet.ensure_available(MODEL, "all")
        assert await fleet.on_which(MODEL) == ["a", "b", "local"]


async def test_model_without_a_place_is_refused_with_the_reason_of_each_node() -> None:
    async with (
        serve_sandboxes(local="none", a="none") as servers,
        servers.open_fleet() as fleet,
    ):
        await fleet.add("a", servers["a"].url, NodeSettings(drained=True))
        await fleet.add(
            "local", servers["local"].url, NodeSettings(max_model_bytes=1_000_000_000)
        )
        with pytest.raises(NoPlaceError) as caught:
            await fleet.ensure_available("llama3.1")
        assert caught.value.reasons == [
            "a is drained",
            "local accepts only models up to 1.0 GB",
        ]
