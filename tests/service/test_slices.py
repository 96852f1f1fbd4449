"""Answers that requests share: what a cancelled or a later request gets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from benchmarks.dataset import fill, names
from herdbook.core.concurrency import time_slice
from herdbook.service.api.openapi import document_of
from herdbook.service.app import composed, routed
from herdbook.service.context import Service

MODELS = 5


@pytest.fixture(autouse=True)
def shortest_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let other tasks run at every checkpoint."""
    monkeypatch.setattr(time_slice, "SLICE_S", 0.0)


@asynccontextmanager
async def made(folder: Path) -> AsyncIterator[tuple[Service, httpx.AsyncClient]]:
    """Give a service with a few models, and a client of it."""
    log = folder / "herd.db"
    await fill(log, 20 * MODELS, MODELS)
    async with composed(log, ollama="127.0.0.1:9") as (service, application):
        transport = httpx.ASGITransport(application)
        address = "http://127.0.0.1"
        async with httpx.AsyncClient(transport=transport, base_url=address) as client:
            yield service, client


@pytest.mark.parametrize("path", ["/v1/status", "/v1/models?gone=true"])
async def test_cached_response_has_the_position_of_its_tag(
    tmp_path: Path, path: str
) -> None:
    async with made(tmp_path) as (service, client):
        for _ in range(10):
            asked = [asyncio.create_task(client.get(path)) for _ in range(3)]
            for name in names(MODELS):
                await service.manager.mark_used(name)
            for answer in await asyncio.gather(*asked):
                position = int(answer.headers["etag"].split('"')[1].partition("~")[0])
                then = await client.get(path, params={"as_of": f"#{position}"})
                result, expected = answer.json(), then.json()
                models = result if isinstance(result, list) else result["models"]
                of_then = expected if isinstance(result, list) else expected["models"]
                uses = {one["name"]: one["uses"] for one in models}
                assert uses == {one["name"]: one["uses"] for one in of_then}


async def test_cancelled_request_frees_its_turn_for_the_next_one(
    tmp_path: Path,
) -> None:
    paths = ["/v1/status", "/v1/status?as_of=%2350", "/v1/diff?from=%2350"]
    async with made(tmp_path) as (service, client):
        for turns in range(0, 120, 5):
            await service.manager.mark_used(names(1)[0])
            asked = [asyncio.create_task(client.get(path)) for path in paths]
            for _ in range(turns):
                await asyncio.sleep(0)
            for one in asked:
                one.cancel()
            await asyncio.wait(asked)

        async with asyncio.timeout(10):
            for path in paths:
                assert (await client.get(path)).status_code == 200


async def test_document_is_built_once_for_concurrent_requests(tmp_path: Path) -> None:
    async with made(tmp_path) as (service, _):
        app = routed(service)
        first, second = (asyncio.create_task(document_of(app)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()

        document = await second
        assert document.content["info"]["title"] == "Herdbook"
        assert await document_of(app) is document
