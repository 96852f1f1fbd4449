"""Only the remains of a killed process are removed by the next one."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from support.log_lines import append

from herdbook.core.errors import CallerError
from herdbook.core.transfer.backup import back_up
from herdbook.core.transfer.private_directory import private_directory

KILLED = """
    import os, signal, sys
    from pathlib import Path
    from herdbook.core.transfer import VICTIM

    def kill(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    VICTIM.place = kill
    log, target = map(Path, sys.argv[1:])
"""
BACKUP = """
    import asyncio
    asyncio.run(backup.back_up(log, target))
"""
EXPORT = """
    import asyncio
    from herdbook.core import Storage, SystemClock
    async def main():
        async with Storage.open(log, SystemClock()) as storage:
            await export.export_to_file(storage, target, SystemClock())
    asyncio.run(main())
"""


@pytest.mark.parametrize(("victim", "work"), [("backup", BACKUP), ("export", EXPORT)])
async def test_killed_process_leaves_no_target_and_is_cleaned_up(
    victim: str, work: str, log: Path, tmp_path: Path
) -> None:
    await append(log, 5)
    target = tmp_path / "out" / "target"
    target.parent.mkdir()
    program = textwrap.dedent(KILLED) + textwrap.dedent(work)

    killed = await asyncio.to_thread(
        subprocess.run,
        [
            *(sys.executable, "-c", program.replace("VICTIM", victim)),
            *(str(log), str(target)),
        ],
        timeout=60,
        check=False,
    )

    assert killed.returncode == -signal.SIGKILL
    assert not target.exists()
    (left,) = target.parent.iterdir()
    assert left.name.startswith(".herdbook-writing-")
    await back_up(log, target)
    assert list(target.parent.iterdir()) == [target]


async def test_directory_in_use_is_kept(tmp_path: Path) -> None:
    async with private_directory(tmp_path) as first:
        (first / "file").write_text("being written")
        async with private_directory(tmp_path) as second:
            assert first != second
            assert (first / "file").exists()
        assert not second.exists()
    assert list(tmp_path.iterdir()) == []


async def test_file_system_without_locks_of_directories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(fcntl, "flock", refuse)

    async with private_directory(tmp_path) as first:
        async with private_directory(tmp_path) as second:
            assert first.exists()
            assert second.exists()
    assert list(tmp_path.iterdir()) == []


async def test_links_are_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine").write_text("mine")
    (tmp_path / ".herdbook-writing-x").symlink_to(elsewhere)

    async with private_directory(tmp_path):
        pass

    assert (elsewhere / "mine").exists()


async def test_directory_that_cannot_be_created_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CallerError, match="cannot be written"):
        async with private_directory(tmp_path / "none"):
            pass


@pytest.mark.parametrize("turns", range(8))
async def test_cancelled_user_leaves_no_directory_and_no_lock(
    tmp_path: Path, turns: int
) -> None:
    async def use() -> None:
        async with private_directory(tmp_path):
            await asyncio.sleep(60)

    before = set(Path("/proc/self/fd").iterdir())
    using = asyncio.create_task(use())
    for _ in range(turns):
        await asyncio.sleep(0)
    while not using.done():  # again and again, also while it cleans up
        using.cancel()
        await asyncio.sleep(0)

    assert using.cancelled()
    assert list(tmp_path.iterdir()) == []
    assert set(Path("/proc/self/fd").iterdir()) <= before
