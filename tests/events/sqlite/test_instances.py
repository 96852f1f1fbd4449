"""Living instances: in one process, in several, and after a kill."""

from __future__ import annotations

import asyncio
import fcntl
import os
import resource
import subprocess
import sys
from pathlib import Path
from socket import gethostname

import pytest

from herdbook.events.errors import StoreUnavailableError
from herdbook.events.instances import Holder
from herdbook.events.memory import MemoryInstances
from herdbook.events.recorded import new_id
from herdbook.events.sqlite.instances import FileInstances

LEASE = "node/gpu 1"

HOLDING = """
import sys
from pathlib import Path
from herdbook.events.sqlite.instances import FileInstances
instances = FileInstances(Path(sys.argv[1]))
print(instances.own, flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "herd.db.instances"


async def test_instances_know_each_other(directory: Path) -> None:
    with FileInstances(directory) as one, FileInstances(directory) as two:
        assert one.own != two.own
        assert await one.alive(one.own)
        assert await one.alive(two.own)
        assert await two.alive(one.own)


async def test_closed_instance_is_dead(directory: Path) -> None:
    with FileInstances(directory) as one:
        with FileInstances(directory) as two:
            pass
        two.close()
        assert not await one.alive(two.own)
        assert not await two.alive(two.own)
        assert await two.alive(one.own)


def test_nothing_is_left_when_all_are_closed(directory: Path) -> None:
    with FileInstances(directory), FileInstances(directory):
        assert len(list(directory.iterdir())) == 2
    assert list(directory.iterdir()) == []


async def test_unknown_instance_is_dead(directory: Path) -> None:
    with FileInstances(directory) as one:
        assert not await one.alive(new_id())


@pytest.mark.parametrize("name", ["", ".", "../herd", "a/b", "x\0y", "A" * 300])
async def test_an_invalid_id_is_dead_and_is_not_a_file_name(
    directory: Path, name: str
) -> None:
    directory.parent.joinpath("herd.lock").touch()
    with FileInstances(directory) as one:
        assert not await one.alive(name)
    assert directory.parent.joinpath("herd.lock").exists()


@pytest.mark.parametrize("how", ["killed", "ended"])
def test_process_is_alive_until_it_is_not(directory: Path, how: str) -> None:
    with (
        FileInstances(directory) as one,
        subprocess.Popen(
            [sys.executable, "-c", HOLDING, str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stdout
        other = process.stdout.readline().strip()
        assert asyncio.run(one.alive(other))
        if how == "killed":
            process.kill()
        process.communicate("\n")
        assert not asyncio.run(one.alive(other))
        assert [path.stem for path in directory.iterdir()] == [one.own]


def test_opening_removes_the_files_of_the_dead_alone(directory: Path) -> None:
    directory.mkdir()
    dead = directory / f"{new_id()}.lock"
    dead.touch()
    other = directory / "notes.lock"
    other.touch()
    with FileInstances(directory) as one:
        FileInstances(directory).close()
        assert {path.name for path in directory.iterdir()} == {
            f"{one.own}.lock",
            "notes.lock",
        }


async def test_two_concurrent_checks_do_not_mistake_each_other_for_the_instance(
    directory: Path,
) -> None:
    with FileInstances(directory) as one:
        dead = directory / f"{new_id()}.lock"
        descriptor = os.open(dead, os.O_CREAT | os.O_RDWR)
        fcntl.flock(descriptor, fcntl.LOCK_SH)  # as another one that asks just now
        assert not await one.alive(dead.stem)
        os.close(descriptor)


def test_unusable_path_is_reported(tmp_path: Path) -> None:
    tmp_path.joinpath("file").touch()
    with pytest.raises(StoreUnavailableError) as caught:
        FileInstances(tmp_path / "file" / "instances")
    assert "Not a directory" in str(caught.value)


def test_instance_that_cannot_look_at_another_one_leaves_nothing(
    directory: Path,
) -> None:
    directory.mkdir()
    unreadable = directory / f"{new_id()}.lock"
    unreadable.mkdir()
    before = [*Path("/proc/self/fd").iterdir()]

    with pytest.raises(StoreUnavailableError):
        FileInstances(directory)

    assert list(directory.iterdir()) == [unreadable]
    assert len([*Path("/proc/self/fd").iterdir()]) == len(before)


def test_instance_on_a_full_disk_leaves_nothing(directory: Path) -> None:
    directory.mkdir()
    before = [*Path("/proc/self/fd").iterdir()]
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, unlimited[1]))
    try:
        with pytest.raises(StoreUnavailableError):
            FileInstances(directory)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)

    assert list(directory.iterdir()) == []
    assert len([*Path("/proc/self/fd").iterdir()]) == len(before)


async def test_instances_in_memory_know_each_other() -> None:
    living: set[str] = set()
    with MemoryInstances(living) as one:
        with MemoryInstances(living) as two:
            assert await one.alive(two.own)
            assert await two.alive(one.own)
        assert not await one.alive(two.own)
    assert not living


async def test_instances_in_memory_may_be_alone() -> None:
    with MemoryInstances() as one, MemoryInstances() as two:
        assert await one.alive(one.own)
        assert not await one.alive(two.own)


@pytest.mark.parametrize("damaged", [b"\xff", b"[1]", b'["\xff"]', b""])
async def test_damaged_announcement_is_a_clear_error(
    damaged: bytes, directory: Path
) -> None:
    with FileInstances(directory) as one, FileInstances(directory) as two:
        await two.announce(["model/local/a:b"])
        (path,) = (p for p in directory.iterdir() if p.suffix != ".lock")
        path.write_bytes(damaged)
        with pytest.raises(StoreUnavailableError, match="is damaged"):
            await one.announced()


async def holder_id(own: FileInstances) -> str | None:
    holder = (await own.holders([LEASE])).get(LEASE)
    return None if holder is None else holder.instance


async def test_one_instance_holds_a_lease(directory: Path) -> None:
    with FileInstances(directory) as one:
        with FileInstances(directory) as two:
            assert await two.holders([LEASE]) == {}
            assert await one.hold(LEASE)
            assert await one.hold(LEASE)
            assert not await two.hold(LEASE)
            assert (await one.holds(LEASE), await two.holds(LEASE)) == (True, False)
            assert await two.hold("node/other")
            host, process = gethostname(), os.getpid()
            held = await two.holders([LEASE, "node/other", "node/free"])
            assert held == {
                LEASE: Holder(one.own, host, process),
                "node/other": Holder(two.own, host, process),
            }
            assert (one.fence(LEASE).is_held(), two.fence(LEASE).is_held()) == (
                True,
                False,
            )

            await one.release(LEASE)
            assert await two.hold(LEASE)
            assert not await one.hold(LEASE)
        assert await one.holders([LEASE]) == {}
        assert await one.hold(LEASE)


def test_lease_of_a_killed_process_is_free(directory: Path) -> None:
    holding = HOLDING.replace(
        "print", f"import asyncio\nassert asyncio.run(instances.hold({LEASE!r}))\nprint"
    )
    with (
        FileInstances(directory) as one,
        subprocess.Popen(
            [sys.executable, "-c", holding, str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stdout
        other = process.stdout.readline().strip()
        assert asyncio.run(holder_id(one)) == other
        assert not asyncio.run(one.hold(LEASE))
        process.kill()
        process.wait()
        assert asyncio.run(holder_id(one)) is None
        assert asyncio.run(one.hold(LEASE))
