"""Kill a process that uses models at a random point; check what the next one finds.

A program that ``test_killed_processes.py`` runs. The arguments are the log, the server,
a seed and a number of kills; it prints one line per kill. With only the first two
arguments it uses models until it is killed from outside.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from contextlib import aclosing
from pathlib import Path
from random import Random

import httpx
from proof.oracle import assert_replay_equals_live, assert_sound

from herdbook.core import ManagerSettings, ModelManager, RecordedEvent
from herdbook.events.sqlite.store import SQLiteEventStore
from herdbook.events.testing.base import log_of

MODEL = "llama3.2:3b"
SETTINGS = ManagerSettings(
    progress_every_s=0.0,
    progress_every_share=0.01,
    poll_every_s=0.01,
    log_poll_every_s=0.01,
)
ENDS = {
    "PullInterrupted",
    "LoadInterrupted",
    "ReloadInterrupted",
    "UpdateInterrupted",
}

OPENING_SHARE = 0.2
"""Share of the kills that come while the log is opened, before any new event."""

MOST_EVENTS = 60
"""Events of a run before it is killed, at most: fewer than one pull records, so that
most kills interrupt a pull, however slow the machine is."""


async def use_models(path: Path, url: str, pipe: int) -> None:
    """Pull, load, use and delete endlessly; print each recorded event."""

    async def print_event(manager: ModelManager) -> None:
        async with aclosing(manager.events(after=0)) as events:
            async for event in events:
                os.write(pipe, f"{event.position} {event.event_id}\n".encode())

    async with ModelManager.open(path, ollama=url, settings=SETTINGS) as manager:
        printing = asyncio.create_task(print_event(manager))
        while not printing.done():
            await manager.ensure_available(MODEL)
            await manager.load(MODEL)
            await manager.load(MODEL, options={"num_ctx": 1024})
            await manager.mark_used(MODEL)
            await manager.unload(MODEL)
            await manager.delete(MODEL)


def run_and_kill(
    path: Path, url: str, position: int | None, seconds: float
) -> dict[str, str]:
    """Run a process, kill it, and return the ids of its acknowledged events.

    Args:
        path: The log.
        url: The server.
        position: Position of an event that the process records before it is killed;
            None to kill it without waiting for one.
        seconds: Time between that event, or the start, and the kill.
    """
    output, pipe = os.pipe()
    child = os.fork()
    if not child:
        asyncio.run(use_models(path, url, pipe))
        os._exit(1)
    os.close(pipe)
    printed: list[str] = []
    with os.fdopen(output) as lines:
        if position is not None:
            for line in lines:
                printed.append(line)
                if int(line.split()[0]) >= position:
                    break
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1]), "it ended before it was killed"
        printed += lines
    acknowledged = [line.split() for line in printed if line.endswith("\n")]
    return {event_id: at for at, event_id in acknowledged}


async def last_event(path: Path) -> list[str]:
    """Return the last event of the model that the killed process left."""
    async with await SQLiteEventStore.open(path) as store:
        await assert_sound(store)
        return [e.type for e in await log_of(store) if e.stream.endswith(MODEL)]


async def recover(
    path: Path, url: str, acknowledged: dict[str, str]
) -> list[RecordedEvent]:
    """Open the log again: no event is lost, and the state is that of the server.

    Returns:
        All events of the log.
    """
    async with ModelManager.open(path, ollama=url, settings=SETTINGS) as manager:
        log = await log_of(manager._storage.store)
        recorded = {event.event_id: str(event.position) for event in log}
        assert acknowledged.items() <= recorded.items()
        statuses = [s for s in await manager.all_statuses() if s.present]
        assert not any(status.work or status.update for status in statuses)
        async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
            listed = (await http.get("/api/tags")).json()["models"]
        digests = {status.name: status.digest for status in statuses}
        assert digests == {entry["name"]: entry["digest"] for entry in listed}
        await assert_replay_equals_live(manager)
        await assert_sound(manager._storage.store)
        return log


def main(path: Path, url: str, seed: int, kills: int) -> None:
    """Kill a process a number of times."""
    chance, interrupted = Random(seed), Counter[str]()
    end = 0
    for _ in range(kills):
        if chance.random() < OPENING_SHARE:
            acknowledged = run_and_kill(path, url, None, chance.uniform(0.0, 0.2))
        else:
            position = end + chance.randint(1, MOST_EVENTS)
            acknowledged = run_and_kill(path, url, position, chance.uniform(0.0, 0.02))
        before = asyncio.run(last_event(path)) if path.exists() else []
        log = asyncio.run(recover(path, url, acknowledged))
        end = log[-1].position
        recovered = [event.type for event in log if event.cause == "recovery"]
        found = Counter(t for t in recovered if t in ENDS) - interrupted
        interrupted += found
        sys.stdout.write(f"{len(acknowledged)} {before[-1:]} {sorted(found)}\n")
    asyncio.run(pull_again(path, url))


async def pull_again(path: Path, url: str) -> None:
    """Pull to the end: nothing that was left behind prevents it."""
    async with ModelManager.open(path, ollama=url, settings=SETTINGS) as manager:
        assert (await manager.ensure_available(MODEL)).present


if __name__ == "__main__" and len(sys.argv) == 3:
    asyncio.run(use_models(Path(sys.argv[1]), sys.argv[2], sys.stdout.fileno()))
elif __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
