"""Instances, nodes and a database that fail while clients work.

Three ``herdbook serve`` on one log in PostgreSQL, each behind a proxy of its own, and
three sandboxes. A seed decides what fails, and when. After each round everything runs
again; at the end, an oracle compares the log with what the clients were answered.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import httpx
import psycopg
from campaign.fleet import truth
from campaign.fleet.clients import Client, Journal, OtherProgram, Reader
from campaign.fleet.programs import Instance, Node
from support.postgres.dropping_proxy import proxied
from support.postgres.server import PostgresServer, new_directory

from herdbook.events.postgres.address import PostgresAddress

NODES = ("local", "two", "three")
BUSY = frozenset({"local", "three"})
"""Nodes whose models clients load; on the other one only the lease holder refreshes."""

TAKEN_OVER_S = 15.0
"""Longest time without a reconciler while the database and an instance run."""

SETTLED_S = 90.0
"""Time until all instances agree with the nodes once nothing fails any more."""

SAMPLE_S = 0.5
"""Interval at which the leases are read, seconds."""


class _Session(NamedTuple):
    """A connection of an instance to the database."""

    opened: float
    instance: Instance

    def __str__(self) -> str:
        return self.instance.name


class Campaign:
    """A fleet, its clients and their faults; use ``opened``.

    Attributes:
        faults: Number of faults by kind.
        journal: What the clients were answered.
        wrong: What is wrong, the most serious first.
        longest_gap_s: Longest time in which a node had no reconciler.
        late: Events of a reconciler that had lost its lease a moment before.
    """

    def __init__(self, seed: int, folder: Path) -> None:
        self.faults: Counter[str] = Counter()
        self.journal = Journal()
        self.wrong: list[str] = []
        self.longest_gap_s = 0.0
        self.late = 0
        self._folder = folder
        self._chance = Random(seed)
        self._instances: list[Instance] = []
        self._nodes: list[Node] = []
        self._readers: list[Reader] = []
        self._database: PostgresServer
        self._models: dict[str, list[str]] = {}
        self._events = 0
        self._calm_since = time.monotonic()
        self._is_calm = True

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, seed: int, folder: Path, *, instances: int = 3, nodes: int = 3
    ) -> AsyncIterator[Campaign]:
        """Start everything; end it when the block ends."""
        campaign = cls(seed, folder)
        directory = new_directory()
        campaign._database = server = PostgresServer(directory)
        async with AsyncExitStack() as stack:
            stack.callback(shutil.rmtree, directory)
            await asyncio.to_thread(server.create)
            await asyncio.to_thread(server.start)
            stack.callback(server.stop)
            await campaign._start(stack, instances, NODES[:nodes])
            yield campaign

    async def _start(
        self, stack: AsyncExitStack, instances: int, names: tuple[str, ...]
    ) -> None:
        self._nodes = [Node(name, self._folder) for name in names]
        for node in self._nodes:
            stack.push_async_callback(node.kill)
        await asyncio.gather(*(node.start() for node in self._nodes))
        for number in range(instances):
            proxy, address = await stack.enter_async_context(
                proxied(PostgresAddress(self._database.url))
            )
            instance = Instance(
                f"instance-{number + 1}",
                address.url,
                self._nodes[0].url,
                proxy,
                self._folder,
            )
            stack.push_async_callback(instance.kill)
            self._instances.append(instance)
        await asyncio.gather(*(instance.start() for instance in self._instances))
        async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
            for node in self._nodes[1:]:
                added = await http.post(
                    f"{self._instances[0].url}/v1/nodes",
                    json={"name": node.name, "url": node.url},
                )
                added.raise_for_status()
            for node in self._nodes:
                listed = (await http.get(f"{node.url}/api/tags")).json()["models"]
                self._models[node.name] = [one["name"] for one in listed]
        await self._settle()
        truth.watch_writes(self._database.url)

    async def run(self, seconds: float, clients: int) -> None:
        """Work and fail for a time, then settle and check everything."""
        ended = asyncio.Event()
        strangers = OtherProgram(
            self._nodes, self._models, Random(self._chance.random())
        )
        work = [strangers.run(ended)] + [
            Client(
                number,
                self.journal,
                self._instances,
                self._models,
                BUSY,
                Random(self._chance.random()),
            ).run(ended)
            for number in range(clients)
        ]
        self._readers = [Reader(instance) for instance in self._instances]
        followers = [asyncio.create_task(reader.run()) for reader in self._readers]
        followers.append(asyncio.create_task(self._watch_leases()))
        working = [asyncio.create_task(one) for one in work]
        try:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                await self._round()
            ended.set()
            await asyncio.gather(*working)
            await self._settle()
            await self._check()
        finally:
            for task in (*working, *followers):
                task.cancel()
            await asyncio.gather(*working, *followers, return_exceptions=True)

    async def _round(self) -> None:
        """Let one to three things fail at the same time, then come back."""
        kinds: list[Callable[[], Awaitable[None]]] = [
            *(self._kill_instance, self._stop_instance, self._freeze_instance),
            *(self._kill_node, self._freeze_node, self._kill_database),
            *(self._kill_database, self._cut, self._cut, self._lose, self._lose),
            *(self._silence, self._terminate),
        ]
        chosen = self._chance.sample(kinds, self._chance.choice((1, 1, 2, 3)))
        self._is_calm = False
        await asyncio.gather(
            *(fault() for fault in {one.__name__: one for one in chosen}.values())
        )
        self._is_calm, self._calm_since = True, time.monotonic()
        await asyncio.sleep(self._chance.uniform(0.5, 3.0))

    async def _kill_instance(self) -> None:
        instance = self._chance.choice(self._instances)
        self.faults["instance killed"] += 1
        await instance.kill()
        await self._pause(0.0, 3.0)
        await instance.start()

    async def _stop_instance(self) -> None:
        instance = self._chance.choice(self._instances)
        self.faults["instance stopped"] += 1
        await instance.stop()
        await self._pause(0.0, 1.0)
        await instance.start()

    async def _freeze_instance(self) -> None:
        instance = self._chance.choice(self._instances)
        self.faults["instance frozen"] += 1
        instance.freeze()
        await self._pause(1.0, 13.0)
        instance.thaw()

    async def _kill_node(self) -> None:
        node = self._chance.choice(self._nodes)
        self.faults["node killed"] += 1
        await node.kill()
        await self._pause(0.0, 4.0)
        await node.start()

    async def _freeze_node(self) -> None:
        node = self._chance.choice(self._nodes)
        self.faults["node frozen"] += 1
        node.freeze()
        await self._pause(1.0, 8.0)
        node.thaw()

    async def _kill_database(self) -> None:
        how = self._chance.choice(("killed", "stopped at once", "stopped fast"))
        self.faults[f"database {how}"] += 1
        if how == "killed":
            self._database.kill()
        else:
            number = signal.SIGINT if how == "stopped fast" else signal.SIGQUIT
            await asyncio.to_thread(self._database.stop, number)
        await self._pause(0.0, 4.0)
        await asyncio.to_thread(self._database.start)

    async def _cut(self) -> None:
        """Cut all connections of some instances, and refuse new ones for a while."""
        number = self._chance.randint(1, len(self._instances))
        for instance in self._chance.sample(self._instances, number):
            self.faults["connections cut"] += 1
            instance.proxy.is_open = False
            instance.proxy.cut()
        await self._pause(0.0, 3.0)
        for instance in self._instances:
            instance.proxy.is_open = True

    async def _lose(self) -> None:
        """Lose some statements or answers of an instance: also those of commits."""
        instance = self._chance.choice(self._instances)
        self.faults["messages lost"] += 1
        chance = Random(self._chance.random())
        instance.proxy.loses = lambda _: chance.random() < 0.1
        await self._pause(0.5, 3.0)
        instance.proxy.loses = lambda _: False

    async def _silence(self) -> None:
        """Relay no more answers on the connections of an instance."""
        instance = self._chance.choice(self._instances)
        self.faults["connections silent"] += 1
        instance.proxy.silence()
        await self._pause(0.5, 6.0)
        instance.proxy.cut()

    async def _terminate(self) -> None:
        """End one session at the server."""
        self.faults["session ended"] += 1
        with suppress(psycopg.Error):
            async with await psycopg.AsyncConnection.connect(
                self._database.url, connect_timeout=2
            ) as connection:
                await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'herdbook' ORDER BY random() LIMIT 1"
                )

    async def _pause(self, shortest_s: float, longest_s: float) -> None:
        await asyncio.sleep(self._chance.uniform(shortest_s, longest_s))

    async def _watch_leases(self) -> None:
        """Measure how long a node has no reconciler while nothing fails."""
        since: dict[str, float] = {}
        names = [node.name for node in self._nodes]
        while True:
            await asyncio.sleep(SAMPLE_S)
            try:
                found = await asyncio.to_thread(
                    truth.holders, self._database.url, names
                )
            except psycopg.Error:
                since.clear()
                continue
            now = time.monotonic()
            for name, count in found.items():
                began = max(since.setdefault(name, now), self._calm_since)
                if count or not self._is_calm:
                    since[name] = now
                else:
                    self.longest_gap_s = max(self.longest_gap_s, now - began)

    async def _settle(self) -> None:
        """Wait until all instances agree with the nodes, and no model is at work."""
        async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
            end = time.monotonic() + SETTLED_S
            while differences := await self._differences(http):
                if time.monotonic() > end:
                    self.wrong += differences
                    return
                await asyncio.sleep(0.5)

    async def _differences(self, http: httpx.AsyncClient) -> list[str]:
        found = []
        for node in self._nodes:
            listed = (await http.get(f"{node.url}/api/tags")).json()["models"]
            loaded = (await http.get(f"{node.url}/api/ps")).json()["models"]
            digests = {one["digest"] for one in loaded}
            real = {one["name"]: one["digest"] in digests for one in listed}
            for instance in self._instances:
                known = await self._known(http, instance, node)
                if known != real:
                    found.append(
                        f"{instance.name} has {known} for {node.name}, which has {real}"
                    )
        return found

    async def _known(
        self, http: httpx.AsyncClient, instance: Instance, node: Node
    ) -> dict[str, bool] | str:
        """Return whether each present model is loaded, or a problem."""
        url = f"{instance.url}/v1/models"
        try:
            answer = await http.get(url, params={"node": node.name, "limit": 1000})
        except httpx.TransportError as error:
            return f"no answer: {error!r}"
        if not answer.is_success:
            return answer.text
        models: list[dict[str, Any]] = answer.json()
        if at_work := [one["name"] for one in models if one["work"] or one["update"]]:
            return f"work on {at_work}"
        return {
            one["name"]: one["runner"] is not None for one in models if one["present"]
        }

    async def _check(self) -> None:
        """Compare the log with what the clients were answered."""
        events, wrong = truth.read(self._database.url)
        self._events = len(events)
        self.wrong += wrong
        self.wrong += self.journal.contradictions(truth.tags(events))
        self.wrong += truth.doubled_work(events)
        self.wrong += self.journal.wrong
        self._check_writers(truth.writes(self._database.url))
        if self.longest_gap_s > TAKEN_OVER_S:
            self.wrong.append(f"no reconciler for {self.longest_gap_s:.1f} s")
        ids = [event.event_id for event in events]
        for reader in self._readers:
            end = time.monotonic() + SETTLED_S
            while len(reader.seen) < len(ids) and time.monotonic() < end:
                await asyncio.sleep(0.1)
            self.wrong += reader.wrong
            if reader.seen != ids:
                self.wrong.append(
                    f"a reader has {len(reader.seen)} of {len(ids)} events"
                )

    def _check_writers(self, writes: list[truth.Write]) -> None:
        """Check that no instance refreshes a node after the next one has begun to.

        An instance also refreshes a node for which it runs an operation. An event whose
        writer lost the lease in the middle of the statement is no error as long as the
        next holder has not recorded anything.
        """
        last: dict[str, _Session | None] = {}
        for one in writes:
            if one.node in BUSY:
                continue
            writer = self._session(one.writer, one.at)
            holder = self._session(one.holder, one.at)
            if writer and holder and writer.instance is holder.instance:
                last[one.node] = holder
                continue
            self.late += 1
            if holder is not None and last.get(one.node) == holder:
                self.wrong.append(f"{one} was written by {writer}")

    def _session(self, port: int | None, at: float) -> _Session | None:
        """Return the session that had a port at a time: ports are used again."""
        sessions = [
            _Session(opened, instance)
            for instance in self._instances
            for opened in instance.proxy.opened.get(port or 0, ())
            if opened <= at
        ]
        return max(sessions, key=lambda one: one.opened, default=None)

    def summary(self) -> str:
        """Return the counts in a few lines."""
        faults = ", ".join(
            f"{count} {kind}" for kind, count in sorted(self.faults.items())
        )
        journal = self.journal
        cuts = sum(instance.proxy.cuts for instance in self._instances)
        return (
            f"{self.faults.total()} faults ({faults}), {cuts} connections cut; "
            f"{len(journal.acknowledged)} commands acknowledged, "
            f"{len(journal.unknown)} without an outcome, "
            f"{len(journal.refused)} refused; "
            f"{self._events} events; longest time without a reconciler "
            f"{self.longest_gap_s:.1f} s, {self.late} events of one "
            "that had lost its lease; "
            f"{len(self.wrong)} wrong\n"
            f"answers: {dict(sorted(journal.answers.items()))}"
        )

    def outputs(self) -> str:
        """Return the last lines of each process."""
        return "\n".join(
            f"{one.name}: {one.output}" for one in (*self._instances, *self._nodes)
        )


def minutes() -> float:
    """Return the requested duration."""
    return float(os.environ.get("HERDBOOK_CAMPAIGN_MINUTES", "0"))
