"""Recorded uses of many random clients add up to what the clients counted."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from pathlib import Path

import pytest
from msgspec import UNSET
from support.gateway.recording import RecordingGateway, recording_gateway
from support.gateway.scripted import raw_connection, until

from herdbook.events.facts import ModelUsed, UseFailed, UseOutcome
from herdbook.events.verify import verify
from herdbook.gateway.recording import recorder

MODELS = ("llama3.2:3b", "smollm2:135m")


class Client:
    """A client that asks at random, and counts."""

    def __init__(self, there: RecordingGateway, name: str, seed: int) -> None:
        self.seen: Counter[str] = Counter()
        self._there = there
        self._key = {"Authorization": f"Bearer key-{name}"}
        self._random = random.Random(seed)

    async def run(self, requests: int) -> None:
        for _ in range(requests):
            model = self._random.choice(MODELS)
            if self._random.random() < 0.25:
                await self._leave(model)
            elif self._random.random() < 0.2:
                await self._fail(model)
            else:
                await self._complete(model)

    async def _complete(self, model: str) -> None:
        wanted = self._random.randint(1, 5)
        asked = {"model": model, "prompt": "x", "options": {"num_predict": wanted}}
        answer = await self._there.http.post(
            "/api/generate", json=asked, headers=self._key
        )
        last = json.loads(answer.text.splitlines()[-1])
        self.seen["completed"] += 1
        self.seen["output"] += last["eval_count"]
        self.seen["prompt"] += last["prompt_eval_count"]

    async def _fail(self, model: str) -> None:
        asked = {"model": model, "prompt": "x", "think": True}
        answer = await self._there.http.post(
            "/api/generate", json=asked, headers=self._key
        )
        assert answer.status_code == 400
        self.seen["failed"] += 1

    async def _leave(self, model: str) -> None:
        options = {"num_predict": 100_000}
        body = json.dumps({"model": model, "prompt": "x", "options": options}).encode()
        async with raw_connection(self._there.address) as client:
            client.send(b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\n")
            client.send(b"Authorization: %b\r\n" % self._key["Authorization"].encode())
            client.send(b"Content-Length: %d\r\n\r\n" % len(body) + body)
            await client.head()
            await client.exactly(5)
        self.seen["client_left"] += 1


async def recorded(there: RecordingGateway) -> dict[str, Counter[str]]:
    """Return what the log says, by client."""
    found: dict[str, Counter[str]] = {}
    for event in await there.events(ModelUsed, UseFailed):
        use = event.data
        assert isinstance(use, ModelUsed | UseFailed)
        client = str(use.client)
        counted = found.setdefault(client, Counter())
        count = use.count
        assert isinstance(count, int)
        counted[str(use.outcome)] += count
        if isinstance(use, ModelUsed) and use.outcome is UseOutcome.COMPLETED:
            assert use.output_tokens is not UNSET
            assert use.prompt_tokens is not UNSET
            counted["output"] += use.output_tokens
            counted["prompt"] += use.prompt_tokens
    return found


USES = 10
"""Uses of each client."""


@pytest.mark.slow
async def test_uses_add_up_to_what_the_clients_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(recorder, "COLLECT_S", 0.05)
    async with recording_gateway(tokens=True, log=tmp_path / "herd.db") as there:
        clients = {f"c{n}": Client(there, f"c{n}", n) for n in range(8)}
        await asyncio.gather(*(client.run(USES) for client in clients.values()))
        total = 8 * USES
        async with asyncio.timeout(20):
            while True:
                found = await recorded(there)
                outcomes = [*UseOutcome]
                counts = [one[str(kind)] for one in found.values() for kind in outcomes]
                if sum(counts) >= total:
                    break
                await asyncio.sleep(0.05)
        assert found == {name: client.seen for name, client in clients.items()}
        # The server stopped for each client that left.
        await until(lambda: all(one.ended for one in there.world.seen), 5.0)
        verified = await verify(there.manager._storage.store)
        assert verified.findings == ()
