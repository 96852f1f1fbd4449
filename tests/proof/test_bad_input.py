"""Invalid input of every kind: a one-line error, and nothing is lost or changed."""

from __future__ import annotations

import math
import os
import socket
import sqlite3
import subprocess
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import pytest
from proof.oracle import assert_replay_equals_live, assert_sound
from support.disk import fill, small_disk
from support.manager_fixture import pull_to_end, serve_manager, serve_sandbox

from herdbook.core import (
    CallerError,
    HerdbookError,
    InvalidAddressError,
    InvalidConfigurationError,
    InvalidNameError,
    ModelManager,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
    UnknownRoleError,
)
from herdbook.events.sqlite.schema import NEWEST

HERE = "plain:latest"
ODD_TEXTS = (
    *("", " ", "a b", "a\nb", "\x00", "a\x00b", "\x1b[31m", "\ud800", "模型", "é" * 9),
    *("../../etc/passwd", "a:b:c:d", "::", "/", ":", "-x", "a/b/c/d/e", "x" * 5000),
    *("a" * 81, "hf.co//x", "x:", ":x", "%s%n", "'; DROP TABLE events; --", "\u202e"),
)
BY_NAME: dict[str, Callable[[ModelManager, str], Awaitable[object]]] = {
    "get_status": ModelManager.get_status,
    "is_available": ModelManager.is_available,
    "ensure_available": ModelManager.ensure_available,
    "pull": pull_to_end,
    "cancel": ModelManager.cancel,
    "load": ModelManager.load,
    "unload": ModelManager.unload,
    "delete": ModelManager.delete,
    "mark_used": ModelManager.mark_used,
    "configure": lambda manager, name: manager.configure(name, {"num_ctx": 512}),
    "options_for": ModelManager.options_for,
    "capabilities": ModelManager.capabilities,
    "statistics": ModelManager.statistics,
    "history": ModelManager.history,
}


async def refused(
    kind: type[HerdbookError], call: Callable[[], Awaitable[object]]
) -> HerdbookError:
    """Return the error of a refused call: one line with three parts."""
    with pytest.raises(kind) as caught:
        await call()
    error = caught.value
    assert error.subject
    assert error.state
    assert str(error).isprintable(), repr(str(error))
    assert len(str(error)) < 1000
    return error


@pytest.mark.parametrize("command", BY_NAME)
async def test_invalid_name_is_refused(command: str) -> None:
    async with serve_manager() as (server, manager):
        before, seen = (await manager.now()).position, len(server.world.seen)
        ask = BY_NAME[command]
        for text in ODD_TEXTS:
            await refused(InvalidNameError, partial(ask, manager, text))
        assert (await manager.now()).position == before
        asked = list(server.world.seen)[seen:]
        assert {one.path for one in asked} <= {"/api/version", "/api/tags", "/api/ps"}


@pytest.mark.parametrize("command", ["load", "unload", "delete", "mark_used"])
async def test_unknown_model_is_not_found(command: str) -> None:
    async with serve_manager() as (_, manager):
        before = (await manager.now()).position
        error = await refused(
            HerdbookError, lambda: BY_NAME[command](manager, "never:heard-of")
        )
        assert error.code == "model_not_found"
        pulling_helps = command in ("load", "mark_used")
        assert error.remedy == ("Pull it first" if pulling_helps else "Check the name")
        assert (await manager.now()).position == before


@pytest.mark.parametrize(
    "setting",
    [
        "num_ctx",
        "temperature",
        "keep_alive",
        "pinned",
        "note",
        "options.seed",
        "options.stop",
    ],
)
async def test_invalid_value_of_a_setting_is_refused(setting: str) -> None:
    async with serve_manager() as (_, manager):
        before = (await manager.now()).position
        for value in (
            math.nan,
            math.inf,
            -math.inf,
            10**30,
            -(10**30),
            "x" * 3000,
            "\ud800",
        ):
            await refused(
                CallerError, partial(manager.configure, HERE, {setting: value})
            )
        assert (await manager.now()).position == before
        await assert_replay_equals_live(manager)


@pytest.mark.parametrize(
    "setting", [t for t in ODD_TEXTS if t] + ["options.", "Num_ctx"]
)
async def test_unknown_setting_is_refused(setting: str) -> None:
    async with serve_manager() as (_, manager):
        await refused(
            InvalidConfigurationError, lambda: manager.configure(HERE, {setting: 1})
        )


@pytest.mark.parametrize("role", ODD_TEXTS)
async def test_unknown_role_is_refused(role: str) -> None:
    async with serve_manager() as (_, manager):
        for ask in (manager.recommend, manager.explain, manager.suggest):
            await refused(UnknownRoleError, partial(ask, role))


@pytest.mark.parametrize("text", ["\ud800", "x" * 3_000_000], ids=["half", "huge"])
async def test_text_that_cannot_be_recorded_is_refused(text: str) -> None:
    async with serve_manager() as (_, manager):
        await refused(CallerError, lambda: manager.mark_used(HERE, purpose=text))
        await refused(
            CallerError, lambda: manager.configure(HERE, {"num_ctx": 512}, note=text)
        )
        assert (await manager.mark_used(HERE, purpose="a line\nand\x00more")).uses == 1
        await assert_replay_equals_live(manager)


@pytest.mark.parametrize("actor", ["\n", "x" * 500, "\ud800"])
async def test_actor_that_cannot_be_recorded_is_refused(actor: str) -> None:
    async with serve_manager() as (_, manager):
        with manager.acting_as(actor):
            await refused(CallerError, lambda: manager.mark_used(HERE))
        assert (await manager.mark_used(HERE)).uses == 1


@pytest.mark.parametrize(
    "when",
    [
        *(-1, -(2**70), 2**70, datetime(2026, 1, 1)),  # noqa: DTZ001 - that is it
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=12))),
    ],
)
async def test_invalid_position_or_time_is_refused(when: int | datetime) -> None:
    async with serve_manager() as (_, manager):
        await refused(CallerError, lambda: manager.as_of(when))


@pytest.mark.parametrize(
    "when", [datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)]
)
async def test_distant_time_is_the_end_or_the_beginning_of_the_log(
    when: datetime,
) -> None:
    async with serve_manager() as (_, manager):
        end = (await manager.now()).position
        assert (await manager.as_of(when)).position in (0, end)


@pytest.mark.parametrize("after", [-1, 2**63, 2**70])
async def test_invalid_position_of_events_is_refused(after: int) -> None:
    async with serve_manager() as (_, manager):
        await refused(CallerError, lambda: anext(manager.events(after=after)))


@pytest.mark.parametrize(
    "address",
    ["ftp://x", "a b", "\x00", "x:y:z"],
)
async def test_invalid_address_is_refused(address: str, tmp_path: Path) -> None:
    path = tmp_path / "herd.db"
    await refused(InvalidAddressError, lambda: opened(path, ollama=address))
    assert not path.exists()


@pytest.mark.parametrize("node", [t for t in ODD_TEXTS if t != "a" * 9])
async def test_invalid_node_name_is_refused(node: str, tmp_path: Path) -> None:
    await refused(CallerError, lambda: opened(tmp_path / "herd.db", node=node))


async def opened(
    log: Path | str, ollama: str = "127.0.0.1:9", node: str = "local"
) -> None:
    async with ModelManager.open(
        log, ollama=ollama, node=node, refresh=False
    ) as manager:
        await manager.configure(HERE, {"num_ctx": 512})


def directory(path: Path) -> None:
    path.mkdir()


def text(path: Path) -> None:
    path.write_text("Dear diary,\n" * 100)


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE events (position INTEGER PRIMARY KEY)")
    connection.close()


def newer(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA application_id = 0x48455244")
        connection.execute(f"PRAGMA user_version = {NEWEST + 1}")
        connection.execute("CREATE TABLE events (position INTEGER PRIMARY KEY)")
    connection.close()


def pipe(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


def loop(path: Path) -> None:
    path.symlink_to(path)


def nowhere(path: Path) -> None:
    path.symlink_to(path.parent / "none" / "herd.db")


def nothing(path: Path) -> None:
    path.symlink_to("/dev/null")


def zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


MADE = (directory, text, foreign, newer, pipe, listening, loop, nowhere, nothing, zeros)


@pytest.mark.parametrize("make", MADE, ids=lambda make: make.__name__)
async def test_file_that_is_not_a_log_is_refused_and_unchanged(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "it"
    make(path)
    before = contents(tmp_path)
    await refused(StoreError, lambda: opened(path))
    assert contents(tmp_path) == before


def contents(folder: Path) -> dict[str, object]:
    """Return the content of a folder: kinds, and the bytes of ordinary files."""
    return {
        one.name: (
            one.lstat().st_mode,
            one.read_bytes() if one.is_file() and not one.is_symlink() else None,
        )
        for one in folder.iterdir()
    }


@pytest.mark.parametrize("name", ["x" * 300, "a\x00b", "no/such/place.db"])
async def test_invalid_path_is_refused(name: str, tmp_path: Path) -> None:
    await refused(HerdbookError, lambda: opened(tmp_path / name))
    assert list(tmp_path.iterdir()) == []


async def test_full_disk_loses_no_event_and_work_continues_after_it(
    tmp_path: Path,
) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        async with (
            serve_sandbox("herd") as server,
            server.open_manager(disk / "herd.db") as manager,
        ):
            ballast, uses = disk / "ballast", 0
            fill(ballast)

            async def use() -> None:
                nonlocal uses
                while True:
                    uses = (await manager.mark_used(HERE, purpose="x" * 3000)).uses

            await refused(StoreFullError, use)
            assert (await manager.get_status(HERE)).uses == uses
            ballast.unlink()
            assert (await manager.mark_used(HERE)).uses == uses + 1
            await assert_replay_equals_live(manager)
            await assert_sound(manager._storage.store)


async def test_new_log_on_a_full_disk_is_refused(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "64k") as disk:
        fill(disk / "ballast")
        await refused(StoreError, lambda: opened(disk / "herd.db"))
        (disk / "ballast").unlink()


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


async def test_read_only_disk_loses_no_event(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "2m") as disk:
        path = disk / "herd.db"
        await opened(path)
        remount(disk, "ro")
        before = path.read_bytes()
        await refused(StoreUnavailableError, lambda: opened(path))
        assert path.read_bytes() == before
        remount(disk, "rw")
        async with ModelManager.open(path, refresh=False) as manager:
            assert (await manager.get_status(HERE)).settings == {"num_ctx": 512}


@pytest.mark.slow
async def test_locked_log_is_refused_until_it_is_free(tmp_path: Path) -> None:
    path = tmp_path / "herd.db"
    async with serve_sandbox("herd") as server, server.open_manager(path) as manager:
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        await refused(StoreUnavailableError, lambda: manager.mark_used(HERE))
        holder.close()
        assert (await manager.mark_used(HERE)).uses == 1
        await assert_replay_equals_live(manager)
