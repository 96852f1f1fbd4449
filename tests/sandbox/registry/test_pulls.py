"""Pulls: progress over time, cancelling, resuming, sharing, and failures."""

from __future__ import annotations

from typing import Any

import pytest

from herdbook.sandbox import OLDER, Behaviour, Settings, apply_step

GEMMA = "gemma3:27b"
LARGE = "127.0.0.1:5055/library/llama3.1:8b"
SLOW = {"rate": 10_000_000}


def completed(exchange: Any) -> int:
    """The bytes of the last line of progress."""
    result = [one for one in exchange.lines if "digest" in one]
    return int(result[-1].get("completed", 0)) if result else 0


def errors(exchange: Any) -> list[str]:
    return [one["error"] for one in exchange.lines if "error" in one]


async def begin(client: Any, model: str = LARGE) -> Any:
    return await client.begin("POST", "/api/pull", {"model": model, "insecure": True})


async def pull(client: Any, model: str = LARGE) -> Any:
    return await client.post("/api/pull", model=model, insecure=True)


async def test_pull_of_a_large_model_takes_time(client_of: Any) -> None:
    client = client_of(usual=Behaviour(rate=1_000_000.0))
    exchange = await client.begin("POST", "/api/pull", {"model": GEMMA})

    await client.advance(600.0)
    await client.advance(0.1)

    # Sixteen connections at a time, each with a megabyte per second.
    assert completed(exchange) == pytest.approx(16 * 600e6, rel=0.01)


async def test_long_pull_has_few_lines(client_of: Any) -> None:
    client = client_of(usual=Behaviour(rate=100_000.0))
    exchange = await client.begin("POST", "/api/pull", {"model": GEMMA})

    await client.advance(3600.0)

    assert not exchange.task.done()
    assert len(exchange.lines) < 10


async def test_pulled_model_is_present_after_success(client_of: Any) -> None:
    client = client_of()

    exchange = await client.post("/api/pull", model="smollm2:135m")

    assert exchange.lines[-1] == {"status": "success"}
    assert await client.names() == ["smollm2:135m"]


async def test_present_layers_get_one_line_each(client: Any) -> None:
    exchange = await client.post("/api/pull", model="plain")

    result = [one for one in exchange.lines if "digest" in one]
    assert [one["completed"] == one["total"] for one in result] == [True] * 3


async def test_closed_connection_cancels_the_pull_and_keeps_its_bytes(
    client_of: Any,
) -> None:
    client = client_of()
    apply_step(client.world, {"registry": SLOW})
    exchange = await begin(client)
    await client.advance(3.0)
    await exchange.close()
    requests = client.world.registry.requests

    await client.advance(60.0)
    assert client.world.registry.requests == requests
    again = await begin(client)
    await client.advance(0.1)

    assert completed(again) == pytest.approx(3 * 30e6, rel=0.05)
    assert [one.ended for one in client.world.seen] == ["closed by client", ""]


async def test_killed_server_loses_running_work(client_of: Any) -> None:
    client = client_of()
    apply_step(client.world, {"registry": SLOW})
    exchange = await begin(client)
    await client.advance(3.0)
    apply_step(client.world, {"server": "killed"})
    await client.advance(1.0)
    apply_step(client.world, {"server": "started"})

    again = await begin(client)
    await client.advance(0.1)

    assert exchange.cut
    assert completed(again) < 5e6


async def test_stopped_server_keeps_the_downloaded_bytes(client_of: Any) -> None:
    client = client_of()
    apply_step(client.world, {"registry": SLOW})
    await begin(client)
    await client.advance(3.0)
    apply_step(client.world, {"server": "stopped"})
    apply_step(client.world, {"server": "started"})

    again = await begin(client)
    await client.advance(0.1)

    assert completed(again) > 80e6


async def test_start_drops_partial_files_older_than_an_hour(client_of: Any) -> None:
    client = client_of()
    apply_step(client.world, {"registry": SLOW})
    exchange = await begin(client)
    await client.advance(3.0)
    await exchange.close()

    await client.advance(3601.0)
    client.world.stop()
    client.world.start()

    assert client.world.store.partials == {}


async def test_start_keeps_partial_files_if_pruning_is_off(client_of: Any) -> None:
    client = client_of(settings=Settings.from_environment({"OLLAMA_NOPRUNE": "1"}))
    apply_step(client.world, {"registry": SLOW})
    exchange = await begin(client)
    await client.advance(3.0)
    await exchange.close()

    await client.advance(3601.0)
    client.world.stop()
    client.world.start()

    assert len(client.world.store.partials) == 1


async def test_concurrent_pulls_share_their_bytes(client_of: Any) -> None:
    client = client_of()
    apply_step(client.world, {"registry": SLOW})
    one = await begin(client)
    await client.advance(2.0)
    other = await begin(client)
    await client.advance(0.1)
    assert completed(other) > 60e6

    await one.close()
    await client.advance(1.0)
    await client.advance(0.1)

    assert completed(other) > 90e6


async def test_pull_right_after_a_cancel_can_join_the_dying_one(
    client_of: Any,
) -> None:
    client = client_of()
    apply_step(client.world, {"registry": SLOW, "cancel_lag_s": 1.0})
    exchange = await begin(client)
    await client.advance(1.0)
    await exchange.close()

    at_once = await pull(client)
    apply_step(client.world, {"registry": {}})
    await client.advance(1.0)
    later = await pull(client)

    assert errors(at_once) == ["context canceled"]
    assert later.lines[-1] == {"status": "success"}


async def test_reset_connections_lose_their_bytes(client_of: Any) -> None:
    client = client_of()
    apply_step(
        client.world, {"registry": {"rate": 10_000_000, "reset_after": 20_000_000}}
    )
    exchange = await begin(client)
    await client.advance(1.9)
    await client.advance(0.07)
    before = completed(exchange)

    await client.advance(0.2)
    await client.advance(0.07)

    assert before > 50e6
    assert "completed" not in exchange.lines[-1]


async def test_endless_resets_exhaust_the_retries(client_of: Any) -> None:
    client = client_of()
    apply_step(
        client.world, {"registry": {"rate": 10_000_000, "reset_after": 20_000_000}}
    )

    exchange = await pull(client)

    assert errors(exchange) == ["max retries exceeded: connection reset by peer"]


async def test_cut_connections_keep_their_bytes(client_of: Any) -> None:
    client = client_of()
    apply_step(
        client.world, {"registry": {"rate": 10_000_000, "cut_after": 20_000_000}}
    )
    exchange = await begin(client)

    await client.advance(2.5)
    await client.advance(0.07)

    assert completed(exchange) == 60_000_000


async def test_stalled_parts_restart_after_thirty_seconds(client_of: Any) -> None:
    client = client_of()
    apply_step(client.world, {"registry": {"stall_after": 50_000_000}})
    exchange = await begin(client)
    await client.advance(20.0)
    await client.advance(0.07)
    stalled = completed(exchange)
    apply_step(client.world, {"registry": SLOW})

    await client.advance(11.0)
    await client.advance(0.07)

    assert stalled == 150_000_000
    assert completed(exchange) < 50_000_000


async def test_full_disk_ends_a_pull_and_keeps_its_bytes(client_of: Any) -> None:
    client = client_of(settings=Settings(disk_bytes=64 * 2**20))

    exchange = await pull(client)

    assert errors(exchange)[0].endswith("-partial: no space left on device")
    assert client.world.store.used_bytes() == pytest.approx(64 * 2**20, rel=0.02)


async def test_corrupt_bytes_are_found_at_the_end_and_dropped(client_of: Any) -> None:
    client = client_of()
    apply_step(client.world, {"registry": {"corrupt": True}})

    exchange = await pull(client)

    assert "digest mismatch, file must be downloaded again" in errors(exchange)[0]
    assert LARGE not in await client.names()
    assert all(blob.weights is None for blob in client.world.store.blobs.values())


async def test_update_drops_unused_layers(client: Any) -> None:
    alias = {"library/llava:7b": "library/qwen3:0.6b"}
    await pull(client, "127.0.0.1:5055/library/llava:7b")
    await client.ask("DELETE", "/api/delete", {"model": "llava:7b"})
    apply_step(client.world, {"registry": {"alias": alias}})

    exchange = await pull(client, "127.0.0.1:5055/library/llava:7b")

    assert {"status": "removing unused layers"} in exchange.lines


async def test_failed_pull_without_a_stream_is_an_error(client_of: Any) -> None:
    client = client_of()

    exchange = await client.post("/api/pull", model="missing", stream=False)

    assert exchange.status == 500
    assert exchange.json == {"error": "pull model manifest: file does not exist"}


async def test_unknown_host_fails_to_resolve(client_of: Any) -> None:
    client = client_of()

    exchange = await client.post("/api/pull", model="nowhere.example/a/b")

    assert errors(exchange)[0].endswith(
        "dial tcp: lookup nowhere.example: no such host"
    )


async def test_denied_manifest_does_not_exist(client: Any) -> None:
    apply_step(client.world, {"registry": {"manifest_status": 404}})

    exchange = await client.post("/api/pull", model="plain")

    assert errors(exchange) == ["pull model manifest: file does not exist"]


async def test_cancel_while_an_older_server_stays_on_a_layer(client_of: Any) -> None:
    client = client_of(profile=OLDER)
    exchange = await begin(client, "127.0.0.1:5055/library/plain")
    await client.advance(0.3)

    await exchange.close()
    await client.advance(60.0)

    assert await client.names() == []
