"""Runners: sharing, waiting, eviction and expiry."""

from __future__ import annotations

from typing import Any

import pytest

from herdbook.sandbox import Settings, apply_step

FOREVER = -1


async def begin(client: Any, model: str, **body: Any) -> Any:
    return await client.begin("POST", "/api/generate", {"model": model, **body})


async def test_load_takes_longer_for_larger_weights(client_of: Any) -> None:
    client = client_of(models="some")
    began = client.world.clock.now()

    await client.load("gemma3:4b")

    assert client.world.clock.now() - began == pytest.approx(3.6, abs=0.1)


async def test_names_of_the_same_weights_share_a_runner(client: Any) -> None:
    await client.post("/api/copy", source="plain", destination="twin")
    await client.load("plain")
    await client.load("twin")

    assert await client.loaded() == ["plain:latest"]


async def test_different_context_reloads_under_the_new_name(client: Any) -> None:
    await client.load("plain")
    await client.load("llama3.2:1b")

    assert await client.loaded() == ["llama3.2:1b"]


async def test_reload_waits_for_the_running_request(client: Any) -> None:
    await client.load("plain")
    exchange = await begin(client, "plain", prompt="a", options={"num_predict": 100})
    reload = await begin(client, "plain", options={"num_ctx": 1024})

    await client.advance(1.0)
    assert not reload.task.done()
    await client.advance(0.2)
    await client.advance(0.3)

    assert exchange.whole
    assert reload.json["done_reason"] == "load"


async def test_runner_ends_at_its_expiry(client: Any) -> None:
    await client.load("plain", keep_alive="10m")

    await client.advance(599.0)
    assert await client.loaded() == ["plain:latest"]
    await client.advance(2.0)

    assert await client.loaded() == []


async def test_use_restarts_the_keep_alive(client: Any) -> None:
    await client.load("plain", keep_alive="10m")
    await client.advance(500.0)
    await client.load("plain")
    await client.advance(500.0)

    assert await client.loaded() == ["plain:latest"]


async def test_runner_without_expiry_stays(client: Any) -> None:
    await client.load("plain", keep_alive=FOREVER)

    await client.advance(365 * 86400.0)

    assert await client.loaded() == ["plain:latest"]


async def test_deleted_model_stays_in_memory_until_its_expiry(
    client: Any,
) -> None:
    await client.load("plain")
    await client.ask("DELETE", "/api/delete", {"model": "plain"})

    assert await client.loaded() == ["plain:latest"]
    assert (await client.load("plain", keep_alive=0)).status == 404
    await client.advance(301.0)
    assert await client.loaded() == []


async def test_replaced_model_gets_a_second_runner(client: Any) -> None:
    await client.load("plain")
    await client.post("/api/create", model="plain", **{"from": "qwen3:0.6b"})
    await client.load("plain")

    assert await client.loaded() == ["plain:latest", "plain:latest"]


async def test_unload_while_a_request_runs_waits_for_it(client: Any) -> None:
    await client.load("plain")
    exchange = await begin(client, "plain", prompt="a", options={"num_predict": 100})
    await client.load("plain", keep_alive=0)
    assert await client.loaded() == ["plain:latest"]

    await client.advance(2.0)
    await client.advance(0.1)

    assert exchange.whole
    assert await client.loaded() == []


async def test_unload_during_a_load_does_nothing(client: Any) -> None:
    loading = await begin(client, "plain")
    unload = await client.begin(
        "POST", "/api/generate", {"model": "plain", "keep_alive": 0}
    )
    await client.advance(1.0)

    assert unload.json["done_reason"] == "unload"
    assert loading.json["done_reason"] == "load"
    assert await client.loaded() == ["plain:latest"]


async def test_unloaded_runner_can_be_listed_a_little_longer(client: Any) -> None:
    apply_step(client.world, {"unload_lag_s": 0.5})
    await client.load("plain")
    await client.load("plain", keep_alive=0)

    assert await client.loaded() == ["plain:latest"]
    await client.advance(0.6)
    assert await client.loaded() == []


async def test_closing_the_connection_aborts_a_load(client: Any) -> None:
    exchange = await begin(client, "plain")
    await exchange.close()

    await client.advance(10.0)

    assert await client.loaded() == []


async def test_closing_the_connection_leaves_the_queue(client: Any) -> None:
    first = await begin(client, "plain")
    waiting = await begin(client, "llava:7b")
    await waiting.close()

    await client.advance(10.0)

    assert first.json["done_reason"] == "load"
    assert await client.loaded() == ["plain:latest"]


async def test_closing_the_connection_ends_an_answer(client: Any) -> None:
    await client.load("plain", keep_alive="1m")
    exchange = await begin(client, "plain", prompt="a", options={"num_predict": 9999})
    await client.advance(1.0)
    await exchange.close()

    await client.advance(61.0)

    assert await client.loaded() == []


async def test_loads_go_one_after_another(client: Any) -> None:
    apply_step(client.world, {"runner_start_delay_s": 3})
    one = await begin(client, "plain")
    other = await begin(client, "llava:7b")

    await client.advance(4.0)

    assert one.task.done()
    assert not other.task.done()


async def test_queue_that_is_full_refuses(client_of: Any) -> None:
    client = client_of(models="herd", settings=Settings(max_queue=1))
    await begin(client, "plain")
    await begin(client, "llava:7b")

    third = await begin(client, "qwen3:0.6b")

    assert third.status == 503
    assert third.json["error"].startswith("server busy, please try again.")


async def test_shortest_keep_alive_is_evicted_first(
    client_of: Any,
) -> None:
    client = client_of(models="herd", settings=Settings(max_loaded=2))
    await client.load("plain", keep_alive=FOREVER)
    await client.load("llava:7b", keep_alive="1h")

    await client.load("qwen3:0.6b")

    assert await client.loaded() == ["plain:latest", "qwen3:0.6b"]


async def test_full_memory_evicts_a_model(client_of: Any) -> None:
    settings = Settings(memory_bytes=5_000_000_000)
    client = client_of(models="some", settings=settings)
    await client.load("llama3.2:3b")

    await client.load("gemma3:4b")

    assert await client.loaded() == ["gemma3:4b"]


async def test_eviction_waits_for_a_busy_model(client_of: Any) -> None:
    client = client_of(models="herd", settings=Settings(max_loaded=1))
    await client.load("plain")
    await begin(client, "plain", prompt="a", options={"num_predict": 100})
    other = await begin(client, "llava:7b")

    await client.advance(1.0)
    assert not other.task.done()
    await client.advance(0.5)
    await client.advance(0.5)

    assert await client.loaded() == ["llava:7b"]


async def test_model_larger_than_the_memory_is_refused(client_of: Any) -> None:
    settings = Settings(memory_bytes=1_000_000_000)
    client = client_of(models="some", settings=settings)

    exchange = await client.load("gemma3:4b")

    assert exchange.status == 500
    assert exchange.json["error"].startswith("model requires more system memory (")


async def test_gpu_memory_is_reported_up_to_its_size(client_of: Any) -> None:
    client = client_of(models="some", settings=Settings(vram_bytes=2_000_000_000))
    await client.load("smollm2:135m")
    await client.load("llama3.2:3b")

    listed = (await client.get("/api/ps"))["models"]

    parts = {one["name"]: (one["size"], one["size_vram"]) for one in listed}
    small = parts["smollm2:135m"]
    assert small[0] == small[1]
    assert parts["llama3.2:3b"][1] == 2_000_000_000 - small[1]


async def test_slow_start_times_out(client_of: Any) -> None:
    client = client_of(models="herd", settings=Settings(load_timeout_s=2.0))
    apply_step(client.world, {"runner_start_delay_s": 8})

    exchange = await client.load("plain")

    assert exchange.json == {"error": "timed out waiting for llama-server to start - "}


async def test_next_load_starts_after_a_failed_one(client: Any) -> None:
    apply_step(client.world, {"runner_dies_saying": "CUDA error: out of memory"})
    failing = await begin(client, "plain")
    waiting = await begin(client, "llava:7b")
    await client.advance(0.1)
    apply_step(client.world, {"runner_dies_saying": None})

    await client.advance(1.0)

    assert failing.json["error"].endswith("exit status 1: CUDA error: out of memory")
    assert waiting.json["done_reason"] == "load"


async def test_next_request_restarts_a_killed_runner(client: Any) -> None:
    await client.load("plain")
    apply_step(client.world, {"runner": "killed"})
    assert await client.loaded() == ["plain:latest"]
    began = client.world.clock.now()

    await client.load("plain")

    assert client.world.clock.now() - began > 0.25
    assert await client.loaded() == ["plain:latest"]


async def test_restart_unloads_all_models(client: Any) -> None:
    await client.load("plain", keep_alive="1h")
    loading = await begin(client, "llava:7b")
    apply_step(client.world, {"server": "stopped"})
    await client.advance(1.0)
    apply_step(client.world, {"server": "started"})

    assert loading.cut
    assert await client.loaded() == []


async def test_stopped_server_does_not_answer(client: Any) -> None:
    apply_step(client.world, {"server": "killed"})

    exchange = await client.begin("GET", "/api/tags")

    assert exchange.cut
    assert exchange.status is None


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"OLLAMA_KEEP_ALIVE": "90"}, 90.0),
        ({"OLLAMA_KEEP_ALIVE": "2m"}, 120.0),
        ({"OLLAMA_KEEP_ALIVE": "-1"}, float("inf")),
    ],
)
def test_keep_alive_from_the_environment(env: dict[str, str], expected: float) -> None:
    assert Settings.from_environment(env).keep_alive_s == expected
