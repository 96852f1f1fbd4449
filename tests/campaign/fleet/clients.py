"""Clients of the instances, and a journal of what they were answered."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from random import Random
from typing import Any, NamedTuple

import httpx
from campaign.fleet.programs import Instance, Node

COMMAND_S = 90.0
"""Time after which a command counts as hung. A call waits 10 s for the database, and
an operation may wait for several."""

POLL_S = 0.2
"""Time between two requests for an operation, seconds."""

NOT_RECORDED = "store_unavailable"
"""The code of an answer that promises that nothing was recorded."""


class Command(NamedTuple):
    """A command that may refresh a node.

    Attributes:
        instance: Name of the instance that was asked.
        node: The node.
        began: Time of the request, in seconds since the epoch.
        ended: Time at which it was known to be over.
    """

    instance: str
    node: str
    began: float
    ended: float


class Journal:
    """What the clients know.

    Attributes:
        acknowledged: Tags of commands that succeeded: recorded once.
        refused: Tags of commands that failed for certain: not recorded.
        unknown: Tags of commands without an answer: recorded once or not.
        answers: Number of answers by command and outcome.
        commands: Commands that may have refreshed a node.
        wrong: Answers that no client should get, and commands that hung.
    """

    def __init__(self) -> None:
        self.acknowledged: set[str] = set()
        self.refused: set[str] = set()
        self.unknown: set[str] = set()
        self.answers: Counter[str] = Counter()
        self.commands: list[Command] = []
        self.wrong: list[str] = []

    def contradictions(self, recorded: Counter[str]) -> list[str]:
        """Return how the tags in the log contradict the answers."""
        lost = [tag for tag in self.acknowledged if not recorded[tag]]
        doubled = [tag for tag, count in recorded.items() if count > 1 and tag]
        invented = [tag for tag in self.refused if recorded[tag]]
        return [
            *(f"lost: {tag}" for tag in lost),
            *(f"doubled: {tag}" for tag in doubled),
            *(f"recorded, but refused: {tag}" for tag in invented),
        ]


class Client:
    """Sends one command after another to instances chosen at random.

    Args:
        number: Its number, part of each tag.
        models: The models, by node; a model of a node that ``busy`` does not name is
            only used and configured, which refreshes no node.
    """

    def __init__(
        self,
        number: int,
        journal: Journal,
        instances: Sequence[Instance],
        models: dict[str, list[str]],
        busy: frozenset[str],
        chance: Random,
    ) -> None:
        self._number = number
        self._journal = journal
        self._instances = instances
        self._models = models
        self._busy = busy
        self._chance = chance
        self._sent = 0
        self._http = httpx.AsyncClient(timeout=COMMAND_S, trust_env=False)

    async def run(self, ended: asyncio.Event) -> None:
        """Send commands until an event is set."""
        async with self._http:
            while not ended.is_set():
                await self._command()
                await asyncio.sleep(self._chance.uniform(0.02, 0.2))

    async def _command(self) -> None:
        instance = self._chance.choice(self._instances)
        node = self._chance.choice(list(self._models))
        model = self._chance.choice(self._models[node])
        kind = self._chance.choices(
            ("use", "configure", "load", "unload", "pull"), (10, 4, 2, 1, 1)
        )[0]
        if kind in ("load", "unload", "pull") and node in self._busy:
            await self._operate(instance, node, model, kind)
        else:
            await self._record(instance, node, model, kind)

    async def _record(
        self, instance: Instance, node: str, model: str, kind: str
    ) -> None:
        """Send a command that records one event with a tag."""
        self._sent += 1
        tag = f"client-{self._number}-{self._sent}"
        path = f"{instance.url}/v1/models/{model}"
        try:
            if kind == "configure":
                answer = await self._http.put(
                    f"{path}/configuration",
                    params={"node": node},
                    json={"settings": {"options.seed": self._seed()}, "note": tag},
                    headers={"if-match": "*"},
                )
            else:
                answer = await self._http.post(
                    f"{path}/uses", params={"node": node}, json={"purpose": tag}
                )
        except httpx.TimeoutException:
            self._journal.wrong.append(f"{tag}: no answer within {COMMAND_S:.0f} s")
            return
        except httpx.TransportError:
            self._journal.unknown.add(tag)
            self._journal.answers[f"{kind}: no answer"] += 1
            return
        code = self._outcome(kind, answer)
        if not code:
            self._journal.acknowledged.add(tag)
        elif answer.status_code < 500 or code == NOT_RECORDED:
            self._journal.refused.add(tag)
        else:
            self._journal.unknown.add(tag)

    def _seed(self) -> int:
        """Return a number that no other command sets: setting it again is no change."""
        return self._number * 1_000_000 + self._sent

    def _outcome(self, kind: str, answer: httpx.Response) -> str:
        """Count an answer; return the code of its error, empty if there is none."""
        code = "" if answer.is_success else answer.json()["code"]
        self._journal.answers[f"{kind}: {code or 'ok'}"] += 1
        if code == "unexpected":
            self._journal.wrong.append(f"{kind} answered {answer.text}")
        return str(code)

    async def _operate(
        self, instance: Instance, node: str, model: str, kind: str
    ) -> None:
        """Start an operation and wait for its end."""
        began = time.time()
        end = time.monotonic() + COMMAND_S
        body = {"kind": kind, "model": model, "node": node}
        try:
            answer = await self._http.post(f"{instance.url}/v1/operations", json=body)
            started = not self._outcome(kind, answer)
            while started and not await self._is_over(instance, answer.json()["id"]):
                if time.monotonic() > end:
                    self._journal.wrong.append(
                        f"{kind} of {model} on {node} hung on {instance.name}"
                    )
                    break
                await asyncio.sleep(POLL_S)
        except httpx.TransportError:  # killed, and the operation with it
            self._journal.answers[f"{kind}: no answer"] += 1
        self._journal.commands.append(Command(instance.name, node, began, time.time()))

    async def _is_over(self, instance: Instance, operation: str) -> bool:
        answer = await self._http.get(f"{instance.url}/v1/operations/{operation}")
        if not answer.is_success:
            return answer.status_code == httpx.codes.NOT_FOUND
        state, error = answer.json()["state"], answer.json()["error"]
        if state == "running":
            return False
        self._journal.answers[f"operation: {error['code'] if error else state}"] += 1
        if error and error["code"] == "unexpected":
            self._journal.wrong.append(f"operation ended with {error}")
        return True


class OtherProgram:
    """Another program that loads and unloads models directly on a node."""

    def __init__(
        self, nodes: Sequence[Node], models: dict[str, list[str]], chance: Random
    ) -> None:
        self._nodes = nodes
        self._models = models
        self._chance = chance

    async def run(self, ended: asyncio.Event) -> None:
        """Change models until an event is set."""
        async with httpx.AsyncClient(timeout=10, trust_env=False) as http:
            while not ended.is_set():
                node = self._chance.choice(self._nodes)
                body: dict[str, Any] = {
                    "model": self._chance.choice(self._models[node.name])
                }
                if self._chance.random() < 0.5:
                    body["keep_alive"] = 0
                with suppress(httpx.TransportError):  # the node is killed or frozen
                    await http.post(f"{node.url}/api/generate", json=body)
                await asyncio.sleep(self._chance.uniform(0.2, 1.0))


class Reader:
    """Follows the live stream of an instance through all of its faults.

    Attributes:
        seen: The ids of the events, by position.
        wrong: Positions that came late, twice or not at all.
    """

    def __init__(self, instance: Instance) -> None:
        self.seen: list[str] = []
        self.wrong: list[str] = []
        self._instance = instance

    async def run(self) -> None:
        """Follow until cancelled, from the next position after each interruption."""
        async with httpx.AsyncClient(timeout=30, trust_env=False) as http:
            while True:
                with suppress(httpx.TransportError):
                    await self._follow(http)
                await asyncio.sleep(0.2)

    async def _follow(self, http: httpx.AsyncClient) -> None:
        url = f"{self._instance.url}/v1/events/stream"
        after = {"after": len(self.seen)}
        async with http.stream("GET", url, params=after) as answer:
            if not answer.is_success:
                return
            recorded = False
            async for line in answer.aiter_lines():
                if line.startswith("event:"):
                    recorded = line == "event: recorded"
                elif line.startswith("data:") and recorded:
                    self._take(json.loads(line.removeprefix("data:")))

    def _take(self, event: dict[str, Any]) -> None:
        if event["position"] != len(self.seen) + 1:
            self.wrong.append(
                f"{self._instance.name} sent #{event['position']} "
                f"after #{len(self.seen)}"
            )
        self.seen.append(event["event_id"])
