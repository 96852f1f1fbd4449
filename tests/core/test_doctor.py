"""The doctor: problems of log, server and models, and their remedies."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from support.manager_fixture import (
    SandboxServer,
    pull_to_end,
    serve_manager,
    serve_sandbox,
)

from herdbook import sandbox
from herdbook.core import HerdbookError, ModelManager
from herdbook.core.checks.server import check_latency
from herdbook.core.diagnosis import Diagnosis, Level
from herdbook.core.doctor import DoctorOptions, check_catalogue, examine
from herdbook.core.operations.costs import models_folder


def at(server: SandboxServer, log: Path) -> DoctorOptions:
    return DoctorOptions(log=log, ollama=server.url)


async def examined(server: SandboxServer, log: Path) -> dict[str, list[Diagnosis]]:
    """Return what the doctor finds, by check."""
    found: dict[str, list[Diagnosis]] = {}
    for each in await examine(at(server, log), clock=server.clock):
        found.setdefault(each.check, []).append(each)
    return found


async def checked(manager: ModelManager, check: str) -> list[Diagnosis]:
    return [each for each in await manager.doctor() if each.check == check]


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder that OLLAMA_MODELS names; it has no blobs yet."""
    folder = tmp_path / "models"
    (folder / "blobs").mkdir(parents=True)
    monkeypatch.setenv("OLLAMA_MODELS", str(folder))
    return folder


async def test_doctor_reports_each_check_of_a_sound_log(tmp_path: Path) -> None:
    log = tmp_path / "herd.db"
    async with serve_sandbox() as server:
        async with server.open_manager(log):
            pass
        found = await examined(server, log)

    assert [*found] == [
        "versions",
        "sqlite",
        "catalogue",
        "log",
        "pragmas",
        "triggers",
        "head",
        "kept_head",
        "wal",
        "clock",
        "permissions",
        "file_system",
        "disk",
        "instances",
        "events",
        "server",
        "version",
        "runners",
        "models",
        "partials",
    ]
    levels = {each.level for result in found.values() for each in result}
    assert Level.PROBLEM not in levels
    assert "herdbook 0." in found["versions"][0].what


async def test_doctor_does_not_create_a_log(tmp_path: Path) -> None:
    async with serve_sandbox() as server:
        found = await examined(server, tmp_path / "herd.db")

    assert found["log"][0].level is Level.NOTICE
    assert found["server"][0].level is Level.OK
    assert not (tmp_path / "herd.db").exists()


async def test_doctor_works_without_a_server(tmp_path: Path) -> None:
    async with serve_sandbox() as server:
        server.apply(server="killed")
        found = await examined(server, tmp_path / "herd.db")

    assert found["server"][0].level is Level.PROBLEM
    assert "cannot be reached" in found["server"][0].what
    assert "ollama serve" in found["server"][0].remedy


async def test_doctor_works_with_a_log_of_another_program(tmp_path: Path) -> None:
    log = tmp_path / "herd.db"
    log.write_text("nonsense " * 1000)
    async with serve_sandbox() as server:
        found = await examined(server, log)

    assert [each.level for each in found["log"]] == [Level.PROBLEM]
    assert found["server"][0].level is Level.OK


async def test_doctor_records_nothing_in_a_log_that_has_a_problem(
    tmp_path: Path,
) -> None:
    log = tmp_path / "herd.db"
    async with serve_sandbox() as server:
        async with server.open_manager(log):
            pass
        with closing(sqlite3.connect(log)) as connection:
            connection.execute("DROP TRIGGER events_are_not_changed")
        before = log.read_bytes()
        await server.pull("smollm2:135m")
        found = await examined(server, log)

    assert found["triggers"][0].level is Level.PROBLEM
    assert found["server"][0].level is Level.OK
    assert log.read_bytes() == before


async def test_doctor_works_where_a_log_is_impossible(tmp_path: Path) -> None:
    async with serve_sandbox() as server:
        found = await examined(server, tmp_path / ("x" * 300))

    assert [each.level for each in found["log"]] == [Level.PROBLEM]
    assert found["server"][0].level is Level.OK


async def test_doctor_works_with_a_log_that_cannot_be_opened(tmp_path: Path) -> None:
    log = tmp_path / "herd.db"
    async with serve_sandbox() as server:
        async with server.open_manager(log):
            pass
        instances = tmp_path / "herd.db-instances"
        instances.rmdir()
        instances.touch()  # a file where the lock files go
        found = await examined(server, log)

    assert [each.level for each in found["log"]] == [Level.OK, Level.PROBLEM]
    assert found["server"][0].level is Level.OK


async def test_work_of_a_dead_process_is_reported_with_a_remedy(tmp_path: Path) -> None:
    log = tmp_path / "herd.db"
    async with serve_sandbox() as server, server.open_manager(log) as manager:
        instance = manager._storage.instances
        pull = manager.pull("llama3.1:latest")
        await anext(pull)
        server.time.stride_s = 0.001  # the pull does not end before the doctor is there
        instance.close()  # type: ignore[attr-defined]  # it dies in the middle
        found = await examined(server, log)
        await pull.aclose()

    dead = found["instances"][-1]
    assert dead.level is Level.NOTICE
    assert "during an operation on llama3.1:latest: pull interrupted" in dead.what
    assert dead.remedy == "Pull it again to resume"


async def test_other_processes_using_the_log_are_counted(tmp_path: Path) -> None:
    log = tmp_path / "herd.db"
    async with serve_sandbox() as server, server.open_manager(log):
        found = await examined(server, log)

    assert found["instances"][0].what == "log in use by 1 other instance"


def test_invalid_catalogue_is_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.toml"
    path.write_text("[models.x]\nfoo = 1\n")
    found = check_catalogue(path)

    assert found.level is Level.PROBLEM
    assert "key foo" in found.what


def test_valid_catalogue_extends_the_shipped_one(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.toml"
    path.write_text('[models."mine:1b"]\ncontext = 100\n')

    assert check_catalogue(path).level is Level.OK


async def test_runner_without_a_model_is_reported_with_memory_and_expiry() -> None:
    async with serve_manager() as (server, manager):
        await server.load("llava:7b")
        await server.delete("llava:7b")
        (found,) = await checked(manager, "runners")

    assert found.level is Level.WARNING
    assert "MB in memory for llava:7b, which was deleted" in found.what
    assert "its memory is freed in" in found.what


async def test_runner_without_a_model_may_have_no_expiry() -> None:
    async with serve_manager() as (server, manager):
        await server.load("llava:7b", keep_alive=-1)
        await server.delete("llava:7b")
        (found,) = await checked(manager, "runners")

    assert "the server keeps it there" in found.what


async def test_runner_of_shared_weights_belongs_to_a_model() -> None:
    async with serve_manager() as (server, manager):
        await server.load("plain")
        await manager.refresh()
        await server.delete("plain")
        (found,) = await checked(manager, "runners")

    assert found.level is Level.OK


async def test_model_without_weights_is_a_problem() -> None:
    async with serve_manager() as (server, manager):
        server.apply(weights_deleted="llava:7b")
        (found,) = await checked(manager, "models")

    assert found.level is Level.PROBLEM
    assert "its weights are missing" in found.what
    assert found.remedy == "Pull it again"


async def test_model_with_a_truncated_manifest_is_a_problem() -> None:
    async with serve_manager() as (server, manager):
        server.apply(manifest_damaged="llava:7b")
        await manager.refresh()
        (found,) = await checked(manager, "models")

    assert found.level is Level.PROBLEM
    assert "llava:7b is damaged" in found.what


async def test_deleted_model_is_not_a_problem() -> None:
    async with serve_manager() as (server, manager):
        await server.delete("llava:7b")
        await manager.refresh()
        (found,) = await checked(manager, "models")

    assert found.level is Level.OK


async def test_model_in_error_is_reported_with_its_last_failure() -> None:
    async with serve_manager() as (server, manager):
        with pytest.raises(HerdbookError):
            await pull_to_end(manager, "no-such:1b")
        server.apply(server="killed")
        (found,) = await checked(manager, "errors")

    assert found.level is Level.WARNING
    assert found.what.startswith("no-such:1b cannot be pulled:")
    assert found.remedy == "Once that is fixed, pull it again"


async def test_older_server_is_reported_with_what_it_lacks() -> None:
    async with (
        serve_sandbox(profile=sandbox.OLDER) as server,
        server.open_manager() as manager,
    ):
        await server.load("plain")
        (found,) = await checked(manager, "version")

    assert found.level is Level.NOTICE
    lacks = "capabilities in its list of models (each needs its own request)"
    assert found.what.endswith(f"{lacks}, or the context in effect")


async def test_server_without_a_version_is_reported() -> None:
    profile = sandbox.Profile(version="0.0.0")
    async with (
        serve_sandbox(profile=profile) as server,
        server.open_manager() as manager,
    ):
        (found,) = await checked(manager, "version")

    assert found.level is Level.NOTICE
    assert "a build without a version" in found.what


@pytest.mark.parametrize(("seconds", "level"), [(0.1, Level.OK), (3, Level.NOTICE)])
def test_slow_answer_is_reported(seconds: float, level: Level) -> None:
    assert check_latency("http://x", "0.9.6", seconds).level is level


async def test_unfinished_download_is_reported_with_its_bytes(models: Path) -> None:
    partial = models / "blobs" / "sha256-ab-partial"
    partial.write_bytes(b"x" * 10_000)
    (models / "blobs" / "sha256-ab-partial-0").write_text("{}")
    async with serve_manager() as (_, manager):
        (found,) = await checked(manager, "partials")

    assert found.level is Level.NOTICE
    assert found.what.startswith(f"1 unfinished in {models}, 12 kB in total")


async def test_running_download_needs_no_action(models: Path) -> None:
    (models / "blobs" / "sha256-ab-partial").write_bytes(b"x")
    async with serve_manager() as (_, manager):
        pull = manager.pull("llama3.1:latest")
        await anext(pull)
        (found,) = await checked(manager, "partials")
        await pull.aclose()

    assert found.level is Level.OK
    assert "in progress: llama3.1:latest" in found.what


async def test_unreadable_downloads_folder_is_reported(models: Path) -> None:
    (models / "blobs").rmdir()
    async with serve_manager() as (_, manager):
        (found,) = await checked(manager, "partials")

    assert found.level is Level.NOTICE
    assert "cannot check for unfinished downloads" in found.what


def test_models_folder_defaults_to_the_one_of_the_user() -> None:
    assert models_folder({}) == Path.home() / ".ollama" / "models"
