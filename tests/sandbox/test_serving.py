"""The sandbox on a real port."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

import httpx
import ollama
import pytest

from herdbook.sandbox import Behaviour, ManualClock, RealClock, World, apply_step, serve


def quick(models: str = "herd", **options: Any) -> World:
    """A world in which seconds are milliseconds."""
    return World(models=models, clock=RealClock(speed=1000.0), **options)


async def seen_by(client: httpx.AsyncClient, world: World) -> None:
    """Wait until a request before this one has reached the server."""
    async with asyncio.timeout(5):
        while len(world.seen) < 2:
            await client.get("/api/version")


async def test_server_stops_with_open_streams() -> None:
    world = World(clock=ManualClock(), usual=Behaviour(rate=1.0))
    async with httpx.AsyncClient(timeout=5) as client:
        async with serve(world) as url:
            asked = {"model": "gemma3:27b"}
            stream = client.stream("POST", f"{url}/api/pull", json=asked)
            answer = await stream.__aenter__()
            lines = answer.aiter_lines()
            await anext(lines)
        with pytest.raises(httpx.TransportError):
            await anext(lines)
        await stream.__aexit__(None, None, None)

    assert [one.ended for one in world.seen] == ["cut"]
    assert len(asyncio.all_tasks()) == 1


async def test_server_notices_a_closed_connection() -> None:
    world = World(clock=ManualClock(), usual=Behaviour(rate=1.0))
    async with serve(world) as url, httpx.AsyncClient(base_url=url) as client:
        asked = {"model": "gemma3:27b"}
        async with client.stream("POST", "/api/pull", json=asked) as answer:
            await anext(answer.aiter_lines())
        async with asyncio.timeout(5):
            while not world.seen[0].ended:
                await client.get("/api/ps")

    assert world.seen[0].ended == "closed by client"


async def test_killed_server_cuts_connections(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World(clock=ManualClock(), models="herd")
    async with serve(world) as url, httpx.AsyncClient(base_url=url) as client:
        loading = asyncio.ensure_future(
            client.post("/api/generate", json={"model": "plain"})
        )
        await seen_by(client, world)
        apply_step(world, {"server": "killed"})
        with pytest.raises(httpx.TransportError):
            await loading
        with pytest.raises(httpx.TransportError):
            await client.get("/api/tags")
        apply_step(world, {"server": "started"})
        assert (await client.get("/api/ps")).json() == {"models": []}

    assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []


async def test_endless_answer_ends_when_the_client_disconnects() -> None:
    world = World()
    apply_step(world, {"answer": {"repeat": True, "status": 200, "body": "x" * 1000}})
    async with serve(world) as url, httpx.AsyncClient(base_url=url) as client:
        async with client.stream("GET", "/api/tags") as answer:
            await anext(answer.aiter_bytes())

        assert (await client.get("/api/version")).status_code == 200


async def test_large_bodies_are_chunked_and_small_ones_have_a_length() -> None:
    async with serve(quick()) as url, httpx.AsyncClient(base_url=url) as client:
        large = await client.get("/api/tags")
        small = await client.get("/api/version")
        head = await client.head("/api/version")

    assert large.headers["transfer-encoding"] == "chunked"
    assert small.headers["content-length"] == head.headers["content-length"]
    assert "server" not in small.headers


async def test_port_is_free_again_afterwards() -> None:
    async with serve(World()) as url:
        port = int(url.rpartition(":")[2])

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    async with serve(World(), port=port) as again:
        assert again == url


async def test_manual_clock_drives_a_client_on_a_socket() -> None:
    clock = ManualClock()
    world = World(models="none", clock=clock)
    async with serve(world) as url, ollama.AsyncClient(host=url) as client:
        await clock.drive(client.pull("gemma3:27b"), rest=0.002)

    assert clock.now() > 10.0


async def test_stopped_server_can_be_started_again() -> None:
    world = World(models="herd")
    async with serve(world) as url:
        port = int(url.rpartition(":")[2])
    async with serve(world, port=port), httpx.AsyncClient(base_url=url) as client:
        names = (await client.get("/api/tags")).json()["models"]

    assert len(names) == 9
