"""Another server with the same log is refused before any request or event."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from support.manager_fixture import pull_to_end, recorded_events, serve_sandbox

from herdbook.core import (
    AmbiguousNodeError,
    ManagerSettings,
    ModelManager,
    NodeAddressError,
)
from herdbook.events import facts
from herdbook.events.sqlite.store import SQLiteEventStore


async def head_of(log: Path) -> int:
    async with await SQLiteEventStore.open(log) as store:
        return (await store.head()).position


async def test_other_address_is_refused_without_a_request(tmp_path: Path) -> None:
    log = tmp_path / "herd.db"
    async with serve_sandbox("herd") as first, serve_sandbox("none") as second:
        async with first.open_manager(log):
            pass
        end = await head_of(log)
        with pytest.raises(NodeAddressError) as refused:
            async with second.open_manager(log):
                pass

        assert first.url in str(refused.value)
        assert second.url in str(refused.value)
        assert "node move" in str(refused.value)
        assert not second.world.seen
        assert await head_of(log) == end


COMMANDS: dict[str, Callable[[ModelManager, str], Awaitable[object]]] = {
    "pull": pull_to_end,
    "load": ModelManager.load,
    "unload": ModelManager.unload,
    "delete": ModelManager.delete,
    "refresh": lambda manager, _: manager.refresh(),
}


@pytest.mark.parametrize("command", COMMANDS)
async def test_commands_are_refused_at_another_address(
    command: str, tmp_path: Path
) -> None:
    log, name = tmp_path / "herd.db", "plain:latest"
    async with serve_sandbox("herd") as first, serve_sandbox("herd") as second:
        async with first.open_manager(log):
            pass
        end = await head_of(log)
        async with second.open_manager(log, refresh=False) as manager:
            with pytest.raises(NodeAddressError):
                await COMMANDS[command](manager, name)
            assert await manager.history(name), "reading the log needs no server"
        assert not second.world.seen
        assert await head_of(log) == end


async def test_moved_node_is_recorded_with_actor_and_both_addresses(
    tmp_path: Path,
) -> None:
    log = tmp_path / "herd.db"
    async with serve_sandbox("herd") as first, serve_sandbox("herd") as second:
        async with first.open_manager(log):
            pass
        async with second.open_manager(log, refresh=False, actor="cli:ann") as manager:
            assert await manager.move_node()
            assert not await manager.move_node()
            assert not (await manager.node_status()).reached
            await manager.refresh()
            assert (await manager.node_status()).reached
            moved = [e for e in await recorded_events(manager) if e.type == "NodeMoved"]

        assert [event.data for event in moved] == [
            facts.NodeMoved(from_url=first.url, to_url=second.url)
        ]
        assert moved[0].actor == "cli:ann"
        async with second.open_manager(log) as manager:
            assert (await manager.verify()).findings == ()
        with pytest.raises(NodeAddressError):
            async with first.open_manager(log):
                pass


async def test_second_node_in_one_log_is_another_server(tmp_path: Path) -> None:
    log = tmp_path / "herd.db"
    async with serve_sandbox("herd") as first, serve_sandbox("none") as second:
        async with first.open_manager(log) as manager:
            names = {status.name for status in await manager.all_statuses()}
        async with ModelManager.open(
            log, ollama=second.url, node="second", clock=second.clock
        ) as manager:
            assert await manager.all_statuses() == []
        async with first.open_manager(log) as manager:
            assert {status.name for status in await manager.all_statuses()} == names


async def test_manager_without_a_name_is_that_of_the_only_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "herd.db"
    monkeypatch.delenv("OLLAMA_HOST", raising=False)
    async with serve_sandbox("herd") as first, serve_sandbox("none") as second:
        async with ModelManager.open(
            log, ollama=first.url, node="gpu1", clock=first.clock
        ):
            pass
        async with ModelManager.open(log, clock=first.clock) as manager:
            status = await manager.node_status()
            assert (status.name, status.url, status.reached) == (
                "gpu1",
                first.url,
                True,
            )
        with pytest.raises(NodeAddressError, match="node gpu1 has the address"):
            async with second.open_manager(log):
                pass
        async with ModelManager.open(
            log, ollama=second.url, node="gpu2", clock=first.clock
        ):
            pass
        with pytest.raises(AmbiguousNodeError, match="Nodes: gpu1, gpu2"):
            async with ModelManager.open(log, clock=first.clock):
                pass


async def test_sandbox_may_change_its_port(tmp_path: Path) -> None:
    log, settings = tmp_path / "herd.db", ManagerSettings(follow_node=True)
    for _ in range(2):
        async with (
            serve_sandbox("herd") as server,
            server.open_manager(log, settings=settings) as manager,
        ):
            assert (await manager.node_status()).url == server.url


async def test_another_spelling_of_the_address_is_not_recorded(tmp_path: Path) -> None:
    log = tmp_path / "herd.db"
    async with serve_sandbox("herd") as server:
        async with server.open_manager(log):
            pass
        end = await head_of(log)
        url = server.url.replace("127.0.0.1", "localhost")
        async with ModelManager.open(log, ollama=url, clock=server.clock) as manager:
            assert manager.server_notice == ""
        assert await head_of(log) == end
