"""Uses through the gateway are not observed again; uses that bypass it are observed."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.gateway.recording import (
    RecordingGateway,
    recording_gateway,
    second_gateway,
)

from herdbook.core import Cause, ManagerSettings, ModelManager
from herdbook.core.reconcile import use_watch
from herdbook.events.facts import KeepAliveRenewed, ModelLoaded, ModelUsed, UseFailed
from herdbook.gateway.recording import recorder

MODEL = "llama3.2:3b"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Record a tenth of a second after a use instead of a whole one."""
    monkeypatch.setattr(recorder, "COLLECT_S", 0.1)


def generate(**more: Any) -> dict[str, Any]:
    return {"model": MODEL, "prompt": "hi", "options": {"num_predict": 3}, **more}


async def observed(there: RecordingGateway) -> int:
    events = await there.events(ModelUsed)
    return sum(event.cause is Cause.OBSERVED for event in events)


async def refresh_until(there: RecordingGateway, observed_uses: int) -> None:
    async with asyncio.timeout(10):
        while await observed(there) < observed_uses:
            await there.manager.refresh()
            await asyncio.sleep(0.05)


async def test_relayed_uses_are_not_observed_again() -> None:
    async with recording_gateway() as there:
        await there.http.post("/api/generate", json=generate())
        for _ in range(10):
            await there.http.post("/api/generate", json=generate())
            await there.manager.refresh()
        await there.wait_for(ModelUsed)
        await asyncio.sleep(0.3)
        await there.manager.refresh()
        await there.manager.refresh()

        assert await observed(there) == 0


async def test_use_that_is_being_relayed_is_not_observed() -> None:
    async with recording_gateway() as there:
        await there.http.post("/api/generate", json=generate())
        await there.wait_for(ModelUsed)
        body = generate(stream=True, options={"num_predict": 40})
        async with there.http.stream("POST", "/api/generate", json=body) as answer:
            async for _ in answer.aiter_lines():
                await there.manager.refresh()
        await there.wait_for(ModelUsed, 2)
        await there.manager.refresh()

        assert await observed(there) == 0


async def test_use_whose_client_left_before_the_answer_is_not_observed() -> None:
    async with recording_gateway() as there:
        await there.http.post("/api/generate", json=generate())
        await there.wait_for(ModelUsed)
        await asyncio.sleep(0.3)
        await there.manager.refresh()
        body = generate(options={"num_predict": 1_000}, stream=False)
        with pytest.raises(httpx.ReadTimeout):
            await there.http.post("/api/generate", json=body, timeout=0.2)
        await there.wait_for(UseFailed)
        for _ in range(2):
            await there.manager.refresh()
            await asyncio.sleep(0.1)

        assert await observed(there) == 0


async def test_load_that_a_refresh_sees_first_is_by_the_client() -> None:
    async with recording_gateway(tokens=True) as there:
        key = {"Authorization": "Bearer key-ann"}
        body = generate(stream=True, options={"num_predict": 40})
        asked = there.http.stream("POST", "/api/generate", json=body, headers=key)
        async with asked as answer:
            async for _ in answer.aiter_lines():
                await there.manager.refresh()
        await there.wait_for(ModelUsed)

        (loaded,) = await there.events(ModelLoaded)
        assert (loaded.actor, loaded.cause) == ("api:ann", Cause.OBSERVED)


async def test_load_through_the_gateway_is_a_renewal_by_the_client() -> None:
    async with recording_gateway(tokens=True) as there:
        key = {"Authorization": "Bearer key-ann"}
        await there.http.post("/api/generate", json=generate(), headers=key)
        await there.wait_for(ModelUsed)
        await asyncio.sleep(0.2)
        await there.manager.refresh()
        load = {"model": MODEL, "keep_alive": "30m"}
        await there.http.post("/api/generate", json=load, headers=key)
        (event,) = await there.wait_for(KeepAliveRenewed)

        assert (event.actor, event.cause) == ("api:ann", Cause.OBSERVED)
        assert await observed(there) == 0


async def test_use_that_bypasses_the_gateway_is_observed() -> None:
    async with recording_gateway() as there:
        await there.http.post("/api/generate", json=generate())
        await there.wait_for(ModelUsed)
        await asyncio.sleep(0.3)
        await there.manager.refresh()
        async with httpx.AsyncClient(base_url=there.manager._client.base_url) as http:
            await http.post("/api/generate", json=generate())
        await refresh_until(there, 1)

        assert await observed(there) == 1


async def test_only_the_instance_with_the_gateway_observes(tmp_path: Path) -> None:
    log = tmp_path / "herd.db"
    async with recording_gateway(log=log) as there:
        await there.http.post("/api/generate", json=generate())
        await there.wait_for(ModelUsed)
        await asyncio.sleep(0.3)
        await there.manager.refresh()
        url = there.manager._client.base_url
        async with (
            httpx.AsyncClient(base_url=url) as http,
            ModelManager.open(log, ollama=url, settings=ManagerSettings()) as other,
        ):
            await http.post("/api/generate", json=generate())
            await other.refresh()
            await other.refresh()
            assert await observed(there) == 0
        await refresh_until(there, 1)

        assert await observed(there) == 1


async def test_gateways_of_two_instances_observe_what_bypasses_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(use_watch, "SETTLED_AFTER", timedelta(seconds=0.5))
    log = tmp_path / "herd.db"
    async with recording_gateway(log=log) as there, second_gateway(there, log) as other:

        async def refresh_both() -> None:
            for _ in range(2):
                await there.manager.refresh()
                await other.manager.refresh()
                await asyncio.sleep(0.6)

        await other.http.post("/api/generate", json=generate())
        await there.wait_for(ModelUsed, 1)
        await refresh_both()
        for client in (there.http, other.http):
            await client.post("/api/generate", json=generate())
            await refresh_both()
        assert await observed(there) == 0

        async with httpx.AsyncClient(base_url=there.manager._client.base_url) as http:
            await http.post("/api/generate", json=generate())
        await refresh_both()
        await refresh_both()
        assert await observed(there) == 1
        body = generate(stream=True, options={"num_predict": 60})
        async with other.http.stream("POST", "/api/generate", json=body) as answer:
            async for _ in answer.aiter_lines():
                await there.manager.refresh()
        await refresh_both()

        exact = [
            one for one in await there.events(ModelUsed) if one.cause is Cause.COMMAND
        ]
        assert len(exact) == 4
        assert await observed(there) == 1
