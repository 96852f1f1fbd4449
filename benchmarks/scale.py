"""How much one log holds: a fleet larger than any real one, and the speed of stores.

    python -m benchmarks.scale --nodes 1000 --models 100
    python -m benchmarks.scale --stores
    python -m benchmarks.scale --readers

The first form records the events of a simulated fleet with the real store, serves that
log and measures pages, API calls and commands. The servers of the fleet do not exist,
so all nodes are lost. The second form measures both stores, the third one the clients
of a live stream. ``docs/scale.md`` has the results.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from time import perf_counter, process_time

from benchmarks import readers
from benchmarks.dataset import first_facts, lifecycle_facts, new_event
from benchmarks.program import cpu_s
from herdbook.core import views
from herdbook.events.facts import Fact, ModelUsed, NodeAdded, NodeReached
from herdbook.events.postgres.address import PostgresAddress
from herdbook.events.postgres.store import PostgresEventStore
from herdbook.events.sqlite.store import SQLiteEventStore
from herdbook.events.store import ANY, EventStore
from herdbook.events.streams import StreamName, model_stream, node_stream
from tests.support.postgres.server import PostgresServer, new_directory

SEED = 1

USED = 0.3
"""Share of the models that were loaded and used."""

NODES_TOGETHER = 10
"""Nodes whose events are recorded at the same time."""

KNOWN = ("llama3.2:3b", "qwen2.5-coder:7b", "llama3.1:8b", "gemma3:4b")
"""Names that every node has; the others are made up."""

LOST = "http://127.0.0.1:9"
"""The address of every node: nothing listens there."""

NODE = "node=node-0001"
MODEL = "/models/llama3.2:3b"
PATHS = (
    *("/", "/?start=501", "/?find=llama", "/?view=matrix", f"/?{NODE}", "/nodes"),
    *("/roles", "/log", "/usage", f"{MODEL}?{NODE}", "/v1/status", "/v1/models"),
    *("/v1/models?limit=100", f"/v1/models?{NODE}", "/v1/nodes", "/v1/ps"),
    *("/v1/roles", "/v1/roles/coding", f"/v1{MODEL}?{NODE}", "/v1/usage"),
    *(f"/v1{MODEL}/history?{NODE}", "/v1/events?limit=100", "/readyz", "/metrics"),
)
COMMANDS = (
    *("ls", "ls --node node-0001", "ps", "node list", "recommend coding"),
    *("history --limit 20", "usage"),
)

EVENTS, CALLERS, READERS = 3_000, 100, 50
"""Events that each store appends, callers at the same time, and subscriptions."""


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale", description=__doc__
    )
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--models", type=int, default=100, help="models of each node")
    parser.add_argument("--stores", action="store_true", help="measure the stores")
    parser.add_argument("--readers", action="store_true", help="measure live streams")
    asked = parser.parse_args()
    place = Path("build")  # not in /tmp, which may be in memory
    place.mkdir(exist_ok=True)
    with TemporaryDirectory(prefix="scale-", dir=place) as folder:
        if asked.stores:
            asyncio.run(_stores(Path(folder)))
        elif asked.readers:
            asyncio.run(_readers(Path(folder)))
        else:
            log = Path(folder) / "herd.db"
            asyncio.run(_fleet(log, asked.nodes, asked.models))
            _pages(log)
            _commands(log)


def _report(what: str, figure: float, unit: str) -> None:
    print(f"{what:<60} {figure:>10,.2f} {unit}", flush=True)


async def _fleet(log: Path, nodes: int, models: int) -> None:
    began = perf_counter()
    events = await fill(log, nodes, models)
    took = perf_counter() - began
    _report(f"{nodes} nodes of {models} models: recording {events:,} events", took, "s")
    _report("size of the log", _size(log) / 1e6, "MB")
    async with await SQLiteEventStore.open(log) as store:
        restored = await _restored(store, "views from all events")
        await views.save(restored, store)
        restored = await _restored(store, "views from their snapshots")
        began = process_time()
        restored.copy()
        _report("a copy of the views, as each page takes", process_time() - began, "s")
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    _report("memory of a process with the views, at most", most, "MB")


async def _restored(store: SQLiteEventStore, what: str) -> views.Views:
    began = process_time()
    restored = await views.restore(store, store)
    _report(f"{what}, CPU time", process_time() - began, "s")
    return restored


def _size(log: Path) -> int:
    return log.stat().st_size


async def fill(log: Path, nodes: int, models: int) -> int:
    """Record the events of a fleet; return their number."""
    chance = Random(SEED)
    async with await SQLiteEventStore.open(log) as store:
        lives = (_lives(f"node-{n:04}", models, chance) for n in range(nodes))
        while together := [*islice(lives, NODES_TOGETHER)]:
            await asyncio.gather(
                *(
                    store.append(stream, [new_event(fact) for fact in facts], ANY)
                    for node in together
                    for stream, facts in node
                )
            )
        return (await store.head()).position


def _lives(
    node: str, models: int, chance: Random
) -> list[tuple[StreamName, list[Fact]]]:
    """Return the facts of a node and of its models."""
    own: list[Fact] = [NodeAdded(url=LOST), NodeReached(version="0.12.6", url=LOST)]
    lives = [(node_stream(node), own)]
    made = (f"model-{number}:latest" for number in range(models))
    for name in [*KNOWN, *made][:models]:
        facts = [*first_facts(name)]
        if chance.random() < USED:
            facts += islice(lifecycle_facts(name), chance.choice((3, 4)))
        lives.append((model_stream(node, name), facts))
    return lives


def _pages(log: Path) -> None:
    """Request every page twice; the second response may come from the cache."""
    command = ["-m", "herdbook.cli", "serve", "--json", "--port", "0", "--db", str(log)]
    with subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as service:
        assert service.stdout is not None
        address = json.loads(service.stdout.readline())["address"]
        _report("serve: until it listens, CPU time", cpu_s(service.pid), "s")
        for path in PATHS:
            _page(address.removeprefix("http://"), path, service.pid)
        _report("serve: memory", _memory_mb(service.pid), "MB")
        service.terminate()


def _page(address: str, path: str, pid: int) -> None:
    times, status, size = [], 0, 0
    for _ in range(2):
        connection = http.client.HTTPConnection(address, timeout=600)
        began = cpu_s(pid)
        connection.request("GET", path)
        answer = connection.getresponse()
        status, size = answer.status, len(answer.read())
        times.append(cpu_s(pid) - began)
        connection.close()
    what = f"GET {path} ({status}, {size / 1e3:,.0f} kB), CPU time"
    _report(what, times[0], f"s, again {times[1]:.2f} s")


def _memory_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _commands(log: Path) -> None:
    for words in COMMANDS:
        began = resource.getrusage(resource.RUSAGE_CHILDREN)
        ran = subprocess.run(
            [sys.executable, "-m", "herdbook.cli", *words.split(), "--db", str(log)],
            capture_output=True,
            check=False,
        )
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        took = ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime
        what = f"herdbook {words} (exit {ran.returncode}, {len(ran.stdout):,} bytes)"
        _report(f"{what}, CPU time", took, "s")


async def _readers(folder: Path) -> None:
    for name, log in (("SQLite", str(folder / "herd.db")), ("PostgreSQL", None)):
        with nullcontext(log) if log else _database() as address:
            print(name, flush=True)
            await readers.measure(address, _report)


async def _stores(folder: Path) -> None:
    async with await SQLiteEventStore.open(folder / "herd.db") as file:
        await _store("SQLite", file)
        _report("SQLite: an event", (folder / "herd.db").stat().st_size / EVENTS, "B")
    with _database() as url:
        async with await PostgresEventStore.open(PostgresAddress(url)) as database:
            await _store("PostgreSQL", database)


@asynccontextmanager
async def _following(store: EventStore, events: int) -> AsyncIterator[None]:
    """Follow the log with many readers; end once all have a number of new events."""
    after = (await store.head()).position

    async def follow() -> None:
        async with aclosing(store.subscribe(after)) as subscription:
            async for event in subscription:
                if event.position >= after + events:
                    return

    reading = [asyncio.create_task(follow()) for _ in range(READERS)]
    yield
    await asyncio.gather(*reading)


async def _store(name: str, store: EventStore) -> None:
    """Measure appends of one caller and of many, reading, and readers that follow."""
    alone = EVENTS // 10
    began = perf_counter()
    for number in range(alone):
        await _append(store, number)
    _report(f"{name}: appends of one caller", alone / (perf_counter() - began), "/s")
    began = perf_counter()
    await _append_together(store, EVENTS)
    rate = EVENTS / (perf_counter() - began)
    _report(f"{name}: appends of {CALLERS} callers", rate, "/s")
    began = perf_counter()
    read = [event async for event in store.read_all()]
    _report(f"{name}: events read", len(read) / (perf_counter() - began), "/s")
    began = perf_counter()
    async with _following(store, EVENTS):
        await _append_together(store, EVENTS)
    rate = EVENTS / (perf_counter() - began)
    _report(f"{name}: appends of {CALLERS} callers, {READERS} readers", rate, "/s")


async def _append(store: EventStore, number: int) -> None:
    stream = model_stream("local", f"model-{number % CALLERS}:latest")
    await store.append(stream, [new_event(ModelUsed(purpose="chat"))], ANY)


async def _append_together(store: EventStore, events: int) -> None:
    async def call(caller: int) -> None:
        for _ in range(events // CALLERS):
            await _append(store, caller)

    await asyncio.gather(*(call(caller) for caller in range(CALLERS)))


@contextmanager
def _database() -> Iterator[str]:
    """Run a server that syncs each commit."""
    directory = new_directory("/var/tmp")
    server = PostgresServer(directory, ("fsync=on", "synchronous_commit=on"))
    try:
        server.create()
        server.start()
        yield server.url
    finally:
        server.stop()
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
