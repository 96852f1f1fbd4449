"""Several nodes with one log."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.fleet_fixture import Sandboxes, serve_fleet, serve_sandboxes
from support.manager_fixture import pull_to_end, recorded_events

from herdbook.core import (
    BusyError,
    CallerError,
    Fleet,
    ManagerSettings,
    NodeAddressError,
    NodeUnreachableError,
    UnknownNodeError,
)
from herdbook.core.fleet.managers import SYNC_EVERY_S
from herdbook.events.facts import ModelUnloaded, NodeSettings, UnloadReason
from herdbook.events.lifecycle import ModelState

WATCHED = ManagerSettings(reconcile_every_s=5.0)
MODEL = "llama3.2:1b"
LOADED = ("codellama:7b", "llama3.1:8b", "llava:7b")


async def test_log_without_added_nodes_has_one_node() -> None:
    async with serve_sandboxes(local="herd") as servers, servers.open_fleet() as fleet:
        assert fleet.names == ["local"]
        assert fleet.home is fleet.manager("local")
        assert (await fleet.manager("local").node_status()).reached
        assert [node.managed for node in await fleet.nodes()] == [False]


async def test_added_node_is_managed_at_once_next_to_the_default_one() -> None:
    async with serve_fleet(local="herd", gpu1="herd") as (servers, fleet):
        assert fleet.names == ["gpu1", "local"]
        added = await fleet.manager("gpu1").node_status()
        assert (added.url, added.reached) == (servers["gpu1"].url, True)
        statuses = await fleet.statuses()
        assert {status.node for status in statuses} == {"gpu1", "local"}
        assert await fleet.on_which(statuses[0].name) == ["gpu1", "local"]


async def test_commands_change_their_node_alone() -> None:
    async with serve_fleet(local="none", gpu1="none") as (servers, fleet):
        await pull_to_end(fleet.manager("gpu1"), MODEL)

        assert await fleet.on_which(MODEL) == ["gpu1"]
        assert servers["gpu1"].has_model(MODEL)
        assert not servers["local"].has_model(MODEL)
        events = await recorded_events(fleet.home)
        pulled = [event for event in events if event.type == "PullCompleted"]
        assert [event.stream for event in pulled] == [f"model/gpu1/{MODEL}"]


async def test_lost_node_makes_only_its_own_models_stale() -> None:
    async with serve_fleet(local="herd", gpu1="herd", gpu2="herd") as (servers, fleet):
        servers["gpu1"].apply(server="killed")
        for manager in fleet.managers():
            if manager is not fleet.manager("gpu1"):
                await manager.refresh()
        with pytest.raises(NodeUnreachableError):
            await fleet.manager("gpu1").refresh()

        stale = {
            status.node
            for status in await fleet.statuses()
            if status.stale_since is not None
        }
        assert stale == {"gpu1"}


async def test_removed_node_is_no_longer_managed_and_can_be_added_again() -> None:
    async with serve_fleet(local="herd", gpu1="herd") as (servers, fleet):
        removed = await fleet.remove("gpu1")

        assert (removed.managed, fleet.names) == (False, ["local"])
        with pytest.raises(UnknownNodeError, match="'gpu1' is not a node"):
            fleet.manager("gpu1")
        with pytest.raises(UnknownNodeError):
            await fleet.remove("gpu1")

        again = await fleet.add("gpu1", servers["gpu1"].url)
        assert again.managed
        assert fleet.names == ["gpu1", "local"]


async def test_node_with_running_work_is_not_removed() -> None:
    async with serve_fleet(local="none", gpu1="none") as (_, fleet):
        pull = fleet.manager("gpu1").pull(MODEL)
        await anext(pull)

        with pytest.raises(BusyError, match=f"running operation on {MODEL}"):
            await fleet.remove("gpu1")
        await pull.aclose()

        await fleet.remove("gpu1")
        assert fleet.names == ["local"]


async def test_only_node_is_not_removed() -> None:
    async with serve_sandboxes(local="herd") as servers, servers.open_fleet() as fleet:
        with pytest.raises(CallerError, match="is the only node"):
            await fleet.remove("local")


async def test_moved_node_is_asked_at_its_new_address() -> None:
    async with serve_fleet(local="none", gpu1="none", spare="none") as (
        servers,
        fleet,
    ):
        await fleet.remove("spare")
        await servers["spare"].pull(MODEL)

        moved = await fleet.move("gpu1", servers["spare"].url)

        assert moved.url == servers["spare"].url
        assert await fleet.on_which(MODEL) == ["gpu1"]


async def test_memory_at_a_new_address_shows_neither_uses_nor_reasons() -> None:
    async with serve_fleet(local="none", gpu1="herd", spare="herd") as (
        servers,
        fleet,
    ):
        await fleet.remove("spare")
        gone, on_both, new = LOADED
        await servers["gpu1"].load(gone)
        await servers["gpu1"].load(on_both)
        await fleet.manager("gpu1").refresh()
        await servers.clock.sleep(60)
        await servers["spare"].load(on_both)
        await servers["spare"].load(new)
        before = len(await recorded_events(fleet.home))

        await fleet.move("gpu1", servers["spare"].url)
        await fleet.manager("gpu1").refresh()

        events = (await recorded_events(fleet.home))[before:]
        assert not any(event.type == "ModelUsed" for event in events)
        unloads = {event.data for event in events if event.type == "ModelUnloaded"}
        assert unloads == {ModelUnloaded(reason=UnloadReason.UNKNOWN)}
        loaded = [
            one.name for one in await fleet.statuses() if one.state is ModelState.LOADED
        ]
        assert gone not in loaded
        assert {on_both, new} <= {*loaded}

        await servers.clock.sleep(10)
        await servers["spare"].load(new)
        await fleet.manager("gpu1").refresh()
        assert (await recorded_events(fleet.home))[-1].type == "ModelUsed"


async def test_problem_of_the_old_address_is_not_that_of_the_new_one() -> None:
    async with serve_fleet(local="none", gpu1="none") as (servers, fleet):
        servers["gpu1"].apply(server="killed")
        with pytest.raises(NodeUnreachableError):
            await fleet.manager("gpu1").refresh()
        assert (await fleet.node("gpu1")).message

        moved = await fleet.move("gpu1", "http://127.0.0.1:1")

        assert (moved.reached, moved.message) == (False, "")


async def test_other_processes_get_and_lose_the_managers_of_nodes(
    tmp_path: Path,
) -> None:
    async with serve_sandboxes(local="herd", gpu1="herd") as servers:
        log = tmp_path / "herd.db"
        async with (
            servers.open_fleet(log, settings=WATCHED) as watching,
            servers.open_fleet(log) as other,
        ):
            await servers.add_to(other)
            await servers.clock.sleep(2 * SYNC_EVERY_S)
            assert watching.names == ["gpu1", "local"]

            await other.remove("gpu1")
            await servers.clock.sleep(2 * SYNC_EVERY_S)
            assert watching.names == ["local"]


async def test_moved_node_whose_server_hangs_can_be_asked_about_elsewhere(
    tmp_path: Path,
) -> None:
    """Its manager does not wait for the server: pages and API need it for the log."""
    log = tmp_path / "herd.db"
    async with (
        serve_sandboxes(local="herd", other="none") as servers,
        servers.open_fleet(log, settings=WATCHED) as watching,
        servers.open_fleet(log) as moving,
    ):
        servers["other"].world.delays = lambda _path: (1e6, 0.0)
        url = servers["other"].url
        async with asyncio.TaskGroup() as group:
            move = group.create_task(moving.move("local", url))
            await servers.clock.sleep(2 * SYNC_EVERY_S)

            assert not move.done(), "the server does not answer"
            assert watching.home.url == url
            assert not (await watching.node("local")).reached


async def test_node_that_another_process_has_just_added_is_not_unknown(
    tmp_path: Path,
) -> None:
    log = tmp_path / "herd.db"
    async with (
        serve_sandboxes(local="none", gpu1="none") as servers,
        servers.open_fleet(log) as one,
        servers.open_fleet(log) as other,
    ):
        await one.add("gpu1", servers["gpu1"].url)

        assert [node.name for node in await other.nodes()] == ["gpu1", "local"]
        with pytest.raises(BusyError, match="not open in this process yet"):
            other.manager("gpu1")
        with pytest.raises(UnknownNodeError):
            other.manager("gpu2")


async def test_nodes_survive_a_restart(tmp_path: Path) -> None:
    async with serve_sandboxes(local="herd", gpu1="herd") as servers:
        log = tmp_path / "herd.db"
        chosen = NodeSettings(tags={"ram": "64GB"}, weight=2, models=("qwen*",))
        async with servers.open_fleet(log) as fleet:
            await fleet.add("gpu1", servers["gpu1"].url, chosen)
        async with servers.open_fleet(log) as fleet:
            assert fleet.names == ["gpu1", "local"]
            assert [node.settings for node in await fleet.nodes()] == [
                chosen,
                NodeSettings(),
            ]


async def test_fleet_of_one_chosen_node(tmp_path: Path) -> None:
    async with serve_sandboxes(local="herd", gpu1="herd") as servers:
        log = tmp_path / "herd.db"
        async with servers.open_fleet(log) as fleet:
            await servers.add_to(fleet)
        async with Fleet.open(log, node="gpu1", clock=servers.clock) as fleet:
            assert fleet.names == ["gpu1"]
            assert (await fleet.home.node_status()).url == servers["gpu1"].url
            assert {one.node for one in await fleet.statuses()} == {"gpu1"}
            with pytest.raises(CallerError, match="would not be managed here"):
                await fleet.add("gpu3", servers["gpu1"].url)
            assert "gpu3" not in {one.name for one in (await fleet.home.now()).nodes()}
        with pytest.raises(UnknownNodeError, match="Did you mean 'gpu1'"):
            async with Fleet.open(log, node="gpu2", clock=servers.clock):
                pass


async def test_only_node_is_used_without_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OLLAMA_HOST", raising=False)
    async with serve_sandboxes(gpu1="herd", other="none") as servers:
        reached, added = tmp_path / "reached.db", tmp_path / "added.db"
        url, other = servers["gpu1"].url, servers["other"].url
        async with Fleet.open(reached, ollama=url, node="gpu1", clock=servers.clock):
            pass
        async with Fleet.open(added, ollama=other, clock=servers.clock) as fleet:
            await fleet.add("gpu1", url)
            await fleet.remove("local")

        for log in (reached, added):
            async with Fleet.open(log, clock=servers.clock) as fleet:
                assert fleet.names == ["gpu1"]
                assert (await fleet.home.node_status()).reached
                assert await fleet.statuses()
            with pytest.raises(NodeAddressError, match="node gpu1 has the address"):
                async with Fleet.open(log, ollama=other, clock=servers.clock):
                    pass


async def test_address_of_no_node_is_refused_where_several_could_be_meant(
    tmp_path: Path,
) -> None:
    log = tmp_path / "herd.db"
    async with serve_sandboxes(gpu1="none", gpu2="none", other="none") as servers:
        for name in ("gpu1", "gpu2"):
            url = servers[name].url
            async with Fleet.open(log, ollama=url, node=name, clock=servers.clock):
                pass
        url, other = servers["gpu2"].url, servers["other"].url
        async with Fleet.open(log, ollama=url, clock=servers.clock) as fleet:
            assert fleet.names == ["gpu1", "gpu2"]
        with pytest.raises(CallerError, match="is not the address of a node in this"):
            async with Fleet.open(log, ollama=other, clock=servers.clock):
                pass
        async with Fleet.open(
            log, ollama=other, node="gpu3", clock=servers.clock
        ) as fleet:
            assert fleet.names == ["gpu3"]


async def test_only_node_with_another_address_is_refused(tmp_path: Path) -> None:
    async with serve_sandboxes(local="herd", other="herd") as servers:
        log = tmp_path / "herd.db"
        async with servers.open_fleet(log):
            pass
        with pytest.raises(NodeAddressError):
            async with Fleet.open(
                log, ollama=servers["other"].url, clock=servers.clock
            ):
                pass


async def test_node_with_another_address_waits_until_that_is_recorded(
    tmp_path: Path,
) -> None:
    async with serve_sandboxes(local="herd", gpu1="herd", other="some") as servers:
        log, other = tmp_path / "herd.db", servers["other"].url
        async with servers.open_fleet(log) as fleet:
            await fleet.add("gpu1", servers["gpu1"].url)
        async with Fleet.open(log, ollama=other, clock=servers.clock) as fleet:
            assert fleet.names == ["gpu1"]
            assert all(task.up for task in fleet.background_tasks())
            error = fleet.problem("local")
            assert f"herdbook node move local {other}" in str(error)

            await fleet.move("local", other)

            assert fleet.names == ["gpu1", "local"]
            assert fleet.problem("local") is None


async def test_the_past_knows_the_nodes_of_its_time() -> None:
    async with serve_fleet(local="herd", gpu1="herd") as (_, fleet):
        with_two = (await fleet.home.now()).position
        await fleet.remove("gpu1")

        then, now = await fleet.as_of(with_two), await fleet.now()

        assert [one.node for one in then] == ["gpu1", "local"]
        assert all(one.statuses() for one in then)
        assert [one.node for one in now] == ["local"]


async def test_key_of_a_node_is_read_from_its_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OLLAMA_API_KEY", "key-of-local")
    monkeypatch.setenv("GPU1_KEY", "key-of-gpu1")
    async with (
        serve_sandboxes(local="herd", gpu1="herd", gpu2="herd") as servers,
        servers.open_fleet() as fleet,
    ):
        await fleet.add("gpu1", servers["gpu1"].url, NodeSettings(key_env="GPU1_KEY"))
        await fleet.add("gpu2", servers["gpu2"].url)
        sent = {name: _authorizations(servers, name) for name in servers.names}
        assert sent == {
            "local": {"Bearer key-of-local"},
            "gpu1": {"Bearer key-of-gpu1"},
            "gpu2": {""},
        }


def _authorizations(servers: Sandboxes, node: str) -> set[str]:
    """Return the Authorization headers of the requests to a node."""
    return {seen.authorization for seen in servers[node].world.seen}


async def test_watched_nodes_are_refreshed_each_in_its_own_time() -> None:
    async with serve_fleet(settings=WATCHED, local="none", gpu1="none") as (
        servers,
        fleet,
    ):
        await servers["gpu1"].pull(MODEL)
        await servers.clock.sleep(2 * 5.0)

        status = await fleet.manager("gpu1").get_status(MODEL)
        assert status.state is ModelState.AVAILABLE
        tasks = [task.name for task in fleet.background_tasks()]
        assert tasks == [
            "nodes",
            "reconciler/gpu1",
            "pinned_models/gpu1",
            "reconciler/local",
            "pinned_models/local",
            "past_snapshots",
        ]


@pytest.mark.parametrize(
    ("name", "url", "settings", "says"),
    [
        ("a/b", "http://one:1", NodeSettings(), "node name 'a/b' is not valid"),
        ("one", "ftp://one", NodeSettings(), "ftp:// is not supported"),
        ("one", "http://me:secret@one", NodeSettings(), "user or a password"),
        ("one", "http://one:1", NodeSettings(key_env="a b"), "'key_env'"),
        ("one", "http://one:1", NodeSettings(weight=-1), "weight"),
        ("one", "http://one:1", NodeSettings(models=("",)), "'models'"),
        ("one", "http://one:1", NodeSettings(tags={"a\n": "b"}), "'tags'"),
    ],
)
async def test_node_that_cannot_be_added_leaves_no_event(
    name: str, url: str, settings: NodeSettings, says: str
) -> None:
    async with serve_sandboxes(local="herd") as servers, servers.open_fleet() as fleet:
        before = (await fleet.home.now()).position
        with pytest.raises(CallerError, match=says) as caught:
            await fleet.add(name, url, settings)
        assert "secret" not in str(caught.value)
        assert (await fleet.home.now()).position == before
        assert fleet.names == ["local"]


async def test_node_cannot_be_added_twice() -> None:
    async with serve_fleet(local="herd", gpu1="herd") as (servers, fleet):
        with pytest.raises(CallerError, match="already exists"):
            await fleet.add("gpu1", servers["gpu1"].url)
        with pytest.raises(NodeAddressError):
            await fleet.add("local", servers["gpu1"].url)


async def test_two_nodes_do_not_have_one_server() -> None:
    async with serve_fleet(local="none", gpu1="none") as (servers, fleet):
        before = (await fleet.home.now()).position
        other_spelling = servers["gpu1"].url.replace("127.0.0.1", "localhost")
        with pytest.raises(CallerError, match="is the address of node 'gpu1'"):
            await fleet.add("gpu2", other_spelling)
        with pytest.raises(CallerError, match="is the address of node 'local'"):
            await fleet.move("gpu1", servers["local"].url)
        assert (await fleet.home.now()).position == before

        await fleet.remove("gpu1")
        await fleet.add("gpu2", other_spelling)
        assert fleet.names == ["gpu2", "local"]


async def test_default_node_that_was_moved_is_asked_at_its_new_address() -> None:
    async with serve_fleet(local="none", gpu1="none") as (servers, fleet):
        await servers["gpu1"].pull(MODEL)
        await fleet.remove("gpu1")

        await fleet.move("local", servers["gpu1"].url)

        assert fleet.names == ["local"]
        assert await fleet.on_which(MODEL) == ["local"]


async def test_invalid_address_leaves_no_log(tmp_path: Path) -> None:
    log = tmp_path / "herd.db"
    with pytest.raises(CallerError, match="is not a valid host name"):
        async with Fleet.open(log, ollama="a b"):
            pass
    assert not log.exists()
