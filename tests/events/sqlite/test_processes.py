"""Several processes on one log, and processes that die at any time."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from herdbook.events.recorded import RecordedEvent
from herdbook.events.sqlite.store import SQLiteEventStore
from herdbook.events.testing.base import assert_sound, event, log_of

APPENDING = """
import asyncio, sys
from herdbook.events.testing.base import event
from herdbook.events.sqlite.store import SQLiteEventStore
from herdbook.events.store import ANY

async def main(path, name):
    async with await SQLiteEventStore.open(path) as store:
        print("open", flush=True)
        sys.stdin.readline()
        for n in range(50):
            await asyncio.gather(
                *(store.append(f"model/n/{m}", [event(name), event(name)], ANY)
                  for m in range(3))
            )

asyncio.run(main(*sys.argv[1:]))
"""

DYING = """
import asyncio, os, random, signal, sys, time
from herdbook.events.testing.base import event
from herdbook.events.sqlite.store import SQLiteEventStore
from herdbook.events.store import ANY

async def append_for_ever(path, pipe):
    async def append(store, n):
        while True:
            (done,) = await store.append(f"model/n/{n}", [event()], ANY)
            os.write(pipe, f"{done.position} {done.event_id}\\n".encode())

    async with await SQLiteEventStore.open(path) as store:
        await asyncio.gather(*(append(store, n) for n in range(8)))

moments = random.Random(int(sys.argv[2]))
kills = kept = 0
while kills < 25 or kept <= 100 and kills < 500:  # a busy machine opens a log slowly
    kills += 1
    acknowledged, pipe = os.pipe()
    child = os.fork()
    if not child:
        asyncio.run(append_for_ever(sys.argv[1], pipe))
    os.close(pipe)
    time.sleep(moments.uniform(0, 0.06 + kills / 1000))  # longer where it is slow
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(acknowledged) as lines:
        text = lines.read()
        kept += text.count("\\n")
        sys.stdout.write(text)
"""

FULL = """
import asyncio, resource, sys
from herdbook.events.testing.base import assert_sound, event
from herdbook.events.errors import OutcomeUnknownError
from herdbook.events.sqlite.store import SQLiteEventStore

async def main(path):
    async with await SQLiteEventStore.open(path) as store:
        await store.append("model/n/m", [event()], 0)
        new = [event("x" * 300_000)]
        unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, unlimited[1]))
        for _ in range(2):
            try:
                await store.append("model/n/m", new, 1)
            except OutcomeUnknownError as error:
                print(error.code, error.event_ids == (new[0].event_id,))
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        (kept,) = await store.append("model/n/m", new, 1)
        await assert_sound(store)
        print(kept.position)

asyncio.run(main(sys.argv[1]))
"""


async def sound_log(path: Path) -> list[RecordedEvent]:
    """Return the log of a file after every check of it."""
    async with await SQLiteEventStore.open(path) as store:
        await assert_sound(store)
        return await log_of(store)


def test_two_processes_append_at_once(tmp_path: Path) -> None:
    path = tmp_path / "herd.db"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", APPENDING, str(path), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two")
    ]
    for process in processes:  # both have opened the new file before either continues
        assert process.stdout
        assert process.stdout.readline() == "open\n"
    for process in processes:
        assert process.communicate("go\n", timeout=50)[0] == ""
        assert process.returncode == 0
    log = asyncio.run(sound_log(path))
    assert [e.position for e in log] == list(range(1, 601))
    for name in ("one", "two"):
        assert sum(e.data == event(name).fact for e in log) == 300


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_process_loses_nothing_acknowledged(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "herd.db"
    done = subprocess.run(
        [sys.executable, "-c", DYING, str(path), str(seed)],
        capture_output=True,
        text=True,
        check=True,
    )
    acknowledged = [line.split() for line in done.stdout.splitlines()]
    assert len(acknowledged) > 100
    log = asyncio.run(sound_log(path))
    recorded = {e.event_id: str(e.position) for e in log}
    assert all(recorded[event_id] == at for at, event_id in acknowledged)


def test_disk_that_fails_leaves_the_outcome_unknown(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "herd.db")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["outcome_unknown True"] * 2 + ["2"]
