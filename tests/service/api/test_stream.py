"""The event stream: each event once, and slow readers do not delay others."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from support.cli_runner import SandboxThread
from support.service_program import RunningService, ServiceProcess, run_in_thread

HERE = "gemma3:4b"
LAST = "the last use"


class EventEntry(NamedTuple):
    """A message of the stream."""

    event: str
    id: int | None
    data: Any


async def messages(lines: AsyncIterator[str]) -> AsyncGenerator[EventEntry, None]:
    """Read messages as a browser does; comments are messages named ``comment``."""
    fields: dict[str, str] = {}
    async for line in lines:
        if not line:
            if "data" in fields:
                number = int(fields["id"]) if "id" in fields else None
                yield EventEntry(fields["event"], number, json.loads(fields["data"]))
            fields = {}
        elif line.startswith(":"):
            yield EventEntry("comment", None, line[1:].strip())
        else:
            name, _, value = line.partition(": ")
            fields[name] = value


async def read(
    client: httpx.AsyncClient,
    *,
    after: int,
    upto: int | None = None,
    seen: int | None = None,
) -> list[int]:
    """Read the stream after a position up to another, or to the last of ``uses``."""
    found: list[int] = []
    url = f"/v1/events/stream?after={after}"
    headers = {} if seen is None else {"last-event-id": str(seen)}
    async with client.stream("GET", url, headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        async with aclosing(messages(answer.aiter_lines())) as result:
            async for one in result:
                if one.event == "recorded":
                    assert one.id == one.data["position"]
                    found.append(one.id or 0)
                    purpose = one.data["data"].get("purpose")
                    if one.id == upto or (upto is None and purpose == LAST):
                        break
    return found


async def uses(client: httpx.AsyncClient, count: int) -> int:
    """Use a model so many times, and return the position of the last one.

    A look at the server may record something in between.
    """
    for number in range(count):
        body = {"purpose": LAST if number == count - 1 else f"use {number}"}
        answer = await client.post(f"/v1/models/{HERE}/uses", json=body)
        assert answer.status_code == 201
    page = await client.get("/v1/events?newest_first=true&type=ModelUsed&limit=1")
    position: int = page.json()["events"][0]["position"]
    return position


def client_of(herdbook: RunningService) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None)
    return httpx.AsyncClient(
        base_url=herdbook.address, timeout=30, trust_env=False, limits=limits
    )


async def test_stream_sends_the_whole_log_and_then_new_events(
    herdbook: RunningService,
) -> None:
    async with client_of(herdbook) as client:
        reading = asyncio.create_task(read(client, after=0))

        last = await uses(client, 20)

        assert await reading == list(range(1, last + 1))


async def test_resumed_stream_misses_and_repeats_nothing(
    herdbook: RunningService,
) -> None:
    async with client_of(herdbook) as client:
        using = asyncio.create_task(uses(client, 120))
        found: list[int] = []
        for cut in (15, 31, 60, 90):
            seen = found[-1] if found else None
            found += await read(client, after=0, upto=cut, seen=seen)
        last = await using
        found += await read(client, after=0, seen=found[-1])

        page = (await client.get("/v1/events?limit=1000&after=0")).json()
        result = [event["position"] for event in page["events"]]
        assert found == result[: len(found)]
        assert found == list(range(1, last + 1))


async def test_two_hundred_concurrent_readers_get_the_same_events(
    program: ServiceProcess,
) -> None:
    async with client_of(program) as client:
        before = (await client.get("/v1/log/head")).json()["position"]
        readers = [
            asyncio.create_task(read(client, after=number % before))
            for number in range(200)
        ]
        await asyncio.sleep(0.5)

        last = await uses(client, 25)
        async with asyncio.timeout(40):
            found = await asyncio.gather(*readers)

    for number, positions in enumerate(found):
        assert positions == list(range(number % before + 1, last + 1))


async def test_filters_select_events_and_keep_their_order(
    herdbook: RunningService,
) -> None:
    async with client_of(herdbook) as client:
        last = await uses(client, 3)
        url = (
            f"/v1/events/stream?after=0&type=ModelUsed&stream_prefix=model/local/{HERE}"
        )
        found = []
        async with client.stream("GET", url) as answer:
            async for result in messages(answer.aiter_lines()):
                found.append(result)
                if result.id == last:
                    break

    assert [one.data["type"] for one in found] == ["ModelUsed"] * 3
    assert found[-1].data["data"] == {"purpose": LAST}
    assert found[-1].data["sentence"] == f"used: {LAST}"


async def test_progress_is_sent_without_an_id(
    tmp_path: Path, slow_ollama: SandboxThread
) -> None:
    with run_in_thread(tmp_path / "herd.db", slow_ollama.address) as herdbook:
        async with client_of(herdbook) as client:
            body = {"kind": "pull", "model": "llama3.1:8b"}
            await client.post("/v1/operations", json=body)
            async with client.stream("GET", "/v1/events/stream") as answer:
                async for result in messages(answer.aiter_lines()):
                    if (
                        result.event == "progress"
                        and result.data["progress"]["total_bytes"]
                    ):
                        break

    assert result.id is None
    assert result.data["activity"] == "pull"
    assert result.data["progress"]["name"] == "llama3.1:8b"


async def test_stream_ends_with_a_goodbye_when_the_service_stops(
    program: ServiceProcess,
) -> None:
    async with client_of(program) as client:
        async with client.stream("GET", "/v1/events/stream") as answer:
            result = messages(answer.aiter_lines())
            stopping = asyncio.create_task(asyncio.to_thread(program.stop))
            ends = [one async for one in result]

        assert await stopping == 0
        assert ends[-1].event == "goodbye"
        assert ends[-1].data == {"reason": "stopping"}
        assert ends[-2] == EventEntry("comment", None, "stopping")


@pytest.mark.parametrize("position", ["999999", "x", "-1"])
async def test_position_after_the_end_of_the_log(
    herdbook: RunningService, position: str
) -> None:
    async with client_of(herdbook) as client:
        answer = await client.get(
            "/v1/events/stream", headers={"last-event-id": position}
        )

    assert answer.status_code == 400
    assert answer.json()["code"] == "bad_request"


async def test_stuck_reader_does_not_affect_the_others(
    herdbook: RunningService,
) -> None:
    """It holds its connection, never reads, and is one of many."""
    with socket.socket() as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.connect(("127.0.0.1", herdbook.port))
        head = (
            f"GET /v1/events/stream?after=0 HTTP/1.1\r\nHost: 127.0.0.1:{herdbook.port}"
        )
        stuck.sendall(f"{head}\r\n\r\n".encode())
        async with client_of(herdbook) as client:
            reading = asyncio.create_task(read(client, after=0))

            last = await uses(client, 50)

            assert await reading == list(range(1, last + 1))


async def test_stream_resumes_after_the_log_could_not_be_read(
    herdbook: RunningService,
) -> None:
    away = herdbook.log.with_name("away.db")
    async with client_of(herdbook) as client:
        last = await uses(client, 3)
        seen: list[EventEntry] = []
        async with client.stream("GET", "/v1/events/stream?after=0") as answer:
            async for result in messages(answer.aiter_lines()):
                seen.append(result)
                if result.id == last:
                    herdbook.log.rename(away)

        assert seen[-1].data == {"reason": "log_failed"}
        found = [result.id for result in seen if result.id]
        assert found == list(range(1, last + 1))
        unready = await client.get("/readyz")
        assert unready.status_code == 503
        failing = {one["task"]: one["code"] for one in unready.json()["failing"]}
        assert failing["live_stream"] == "store_unavailable"

        away.rename(herdbook.log)
        async with asyncio.timeout(20):
            while (await client.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.05)
        end = await uses(client, 3)
        found += await read(client, after=0, seen=found[-1])

        assert found == list(range(1, end + 1))
