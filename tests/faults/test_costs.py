"""The cost of a pull or a load, shown before it starts, with its source."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.manager_fixture import serve_manager, serve_sandbox

from herdbook.core import (
    CloudModelError,
    CostSource,
    ModelNotFoundError,
)
from herdbook.core.operations.costs import free_disk

HERE = "http://127.0.0.1:11434"
NAME = "llava:7b"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder that OLLAMA_MODELS names."""
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path))
    return tmp_path


async def test_download_size_is_that_of_the_tag_in_the_catalogue() -> None:
    async with serve_manager("none") as (_, manager):
        cost = await manager.cost_of_pull("llama3.1")

    assert (cost.name, cost.update) == ("llama3.1:latest", False)
    assert cost.fetch.size_bytes == 4_700_000_000
    assert cost.fetch.source is CostSource.CATALOGUE
    assert cost.fetch.note == "Ollama's README, table of example models"


@pytest.mark.parametrize("name", ["llama3.1:70b", "nobody:1b", "llama3.3:1b"])
async def test_size_that_is_not_in_the_catalogue_is_unknown(name: str) -> None:
    async with serve_manager("none") as (_, manager):
        fetch = (await manager.cost_of_pull(name)).fetch

    assert (fetch.size_bytes, fetch.source) == (None, CostSource.UNKNOWN)
    assert fetch.note == "not known until the pull starts"


async def test_cost_of_pulling_a_present_model_is_that_of_an_update() -> None:
    async with serve_manager() as (_, manager):
        assert (await manager.cost_of_pull("plain")).update


async def test_free_disk_is_that_of_the_servers_folder(folder: Path) -> None:
    async with serve_manager() as (_, manager):
        free = (await manager.cost_of_pull(NAME)).free

    assert free.size_bytes
    assert (free.source, free.note) == (CostSource.DISK, str(folder))


@pytest.mark.parametrize("url", ["http://10.0.0.5:11434", "https://ollama.example"])
def test_disk_of_another_machine_is_unknown(url: str, tmp_path: Path) -> None:
    free = free_disk(url, tmp_path)

    assert (free.size_bytes, free.note) == (None, "the server is on another machine")


def test_disk_of_a_missing_folder_is_unknown(tmp_path: Path) -> None:
    free = free_disk(HERE, tmp_path / "none")

    assert free.size_bytes is None
    assert free.note.endswith("none: No such file or directory")


async def test_cost_of_a_load_has_the_models_size_and_the_memory_in_use() -> None:
    async with serve_manager() as (server, manager):
        await server.load("llama3.1:8b")
        cost = await manager.cost_of_load(NAME)
        (runner,) = server.world.runners.listed()

        assert cost.size.size_bytes == (await manager.get_status(NAME)).size_bytes
        assert (cost.size.source, cost.held.source) == (CostSource.TAGS, CostSource.PS)
        assert (cost.runners, cost.held.size_bytes) == (1, runner.size)
        assert not cost.loaded


async def test_cost_of_loading_a_loaded_model_says_that_it_is_loaded() -> None:
    async with serve_manager() as (_, manager):
        await manager.load(NAME)

        assert (await manager.cost_of_load(NAME)).loaded


async def test_cost_starts_no_operation() -> None:
    async with serve_manager() as (server, manager):
        before = (await manager.now()).position
        await manager.cost_of_pull("llama3.2:3b")
        await manager.cost_of_load(NAME)

        assert (await manager.now()).position == before
        assert (
            server.request_count("/api/pull")
            == server.request_count("/api/generate")
            == 0
        )


async def test_cost_of_loading_a_missing_model_is_refused() -> None:
    async with serve_manager("none") as (_, manager):
        with pytest.raises(ModelNotFoundError):
            await manager.cost_of_load(NAME)


async def test_cost_of_loading_a_cloud_model_is_refused() -> None:
    async with serve_sandbox() as server:
        stub = {"from": "gpt-oss:120b", "remote_host": "https://ollama.com"}
        await server.request("POST", "/api/create", model="far:cloud", **stub)
        async with server.open_manager() as manager:
            with pytest.raises(CloudModelError):
                await manager.cost_of_load("far:cloud")
