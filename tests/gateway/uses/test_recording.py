"""Uses through the gateway, as the log has them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from structlog.testing import capture_logs
from support.gateway.recording import RecordingGateway, recording_gateway
from support.gateway.scripted import raw_connection, until

from herdbook.core import ModelManager, ModelState, OllamaError, RecordedEvent
from herdbook.events.errors import StoreFullError
from herdbook.events.facts import (
    ModelDeleted,
    ModelUnloaded,
    ModelUsed,
    NodeLost,
    UnloadReason,
    UseFailed,
    UseOutcome,
    UsesNotRecorded,
)
from herdbook.gateway.recording import recorder

MODEL = "llama3.2:3b"
AFTER_A_USE = (ModelUsed, ModelUnloaded, ModelDeleted, NodeLost)
"""Types of events about uses, and about what may end them."""


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Record a tenth of a second after a use instead of a whole one."""
    monkeypatch.setattr(recorder, "COLLECT_S", 0.1)


def used(event: RecordedEvent) -> ModelUsed:
    assert isinstance(event.data, ModelUsed)
    return event.data


def generate(model: str = MODEL, **more: Any) -> dict[str, Any]:
    return {"model": model, "prompt": "hi", "options": {"num_predict": 3}, **more}


async def test_a_use_is_recorded_with_its_measures() -> None:
    before = datetime.now(UTC)
    async with recording_gateway() as there:
        answer = await there.http.post("/api/generate", json=generate())
        assert answer.status_code == 200
        (event,) = await there.wait_for(ModelUsed)
        status = await there.manager.get_status(MODEL)

    use = used(event)
    assert event.actor == "gateway:127.0.0.1"
    assert event.stream == f"model/local/{MODEL}"
    assert (use.endpoint, use.client) == ("/api/generate", "127.0.0.1")
    assert use.outcome is UseOutcome.COMPLETED
    assert (use.prompt_tokens, use.output_tokens) == (24, 3)
    assert use.loaded_by_it is True
    assert use.count == 1
    assert use.failure is msgspec.UNSET
    assert isinstance(use.first_token_s, float)
    assert isinstance(use.duration_s, float)
    assert 0 < use.first_token_s <= use.duration_s
    assert isinstance(use.started_at, datetime)
    assert before <= use.started_at <= event.recorded_at
    assert (status.uses, status.state) == (1, ModelState.LOADED)


async def test_the_client_is_the_actor_of_the_changes_it_caused() -> None:
    async with recording_gateway(tokens=True) as there:
        key = {"Authorization": "Bearer key-ann"}
        await there.http.post("/api/generate", json=generate(), headers=key)
        await there.wait_for(ModelUsed)
        pull = {"model": "tinyllama", "stream": False}
        await there.http.post("/api/pull", json=pull, headers=key)
        names = {"model": "tinyllama"}
        await there.wait_for_state("tinyllama", ModelState.AVAILABLE)
        await there.http.request("DELETE", "/api/delete", json=names, headers=key)
        await there.wait_for_state("tinyllama", ModelState.NOT_PRESENT)
        result = [
            (one.type, one.actor)
            async for one in there.manager._storage.store.read_all()
            if one.actor != "reconciler"
        ]
    assert result == [
        ("ModelLoaded", "api:ann"),
        ("ModelUsed", "api:ann"),
        ("ModelDiscovered", "api:ann"),
        ("CapabilitiesDetected", "api:ann"),
        ("ModelVanished", "api:ann"),
    ]


CREATE = {"model": "made", "from": MODEL, "system": "Be short.", "stream": False}
CHANGES: dict[str, tuple[dict[str, Any], str, str]] = {
    "/api/copy": (
        {"source": MODEL, "destination": "mine"},
        "mine:latest",
        "ModelDiscovered",
    ),
    "/api/create": (CREATE, "made:latest", "ModelDiscovered"),
    "/api/pull": (
        {"model": "tinyllama", "stream": False},
        "tinyllama:latest",
        "ModelDiscovered",
    ),
    "/api/generate": ({"model": MODEL}, MODEL, "ModelLoaded"),
}


@pytest.mark.parametrize("path", CHANGES)
async def test_each_change_has_the_client_as_its_actor(path: str) -> None:
    body, name, expected = CHANGES[path]
    async with recording_gateway(tokens=True) as there:
        key = {"Authorization": "Bearer key-ann"}
        answer = await there.http.post(path, json=body, headers=key)
        assert answer.status_code == 200, answer.text
        async with asyncio.timeout(10):
            while True:
                found = [
                    (one.type, one.actor)
                    async for one in there.manager._storage.store.read_all()
                    if one.stream == f"model/local/{name}" and one.type == expected
                ]
                if found and found[-1][1] != "reconciler":
                    break
                await asyncio.sleep(0.02)
        if expected != "ModelLoaded":
            assert await there.events(ModelUsed) == []
            assert found == [(expected, "api:ann")]
            return
        unload = {"model": MODEL, "keep_alive": 0}
        await there.http.post("/api/generate", json=unload, headers=key)
        await there.wait_for_state(MODEL, ModelState.AVAILABLE)
        (unloaded,) = await there.events(ModelUnloaded)
        assert unloaded.actor == "api:ann"
        assert isinstance(unloaded.data, ModelUnloaded)
        assert unloaded.data.reason is UnloadReason.REQUESTED


async def test_uses_that_end_together_become_one_event() -> None:
    async with recording_gateway(tokens=True) as there:
        await there.http.post(
            "/api/generate", json=generate(), headers={"X-Api-Key": "key-ann"}
        )
        await there.wait_for(ModelUsed)
        asked = [
            there.http.post(
                "/api/generate", json=generate(), headers={"X-Api-Key": f"key-{name}"}
            )
            for name in ("ann", "bob", "bob", "ann", "ann")
        ]
        await asyncio.gather(*asked)
        await until_uses(there, 6)
        events = (await there.events(ModelUsed))[1:]

    by_client: dict[str, int] = {}
    for event in events:
        use = used(event)
        assert isinstance(use.count, int)
        assert use.output_tokens == 3 * use.count
        client = str(use.client)
        by_client[client] = by_client.get(client, 0) + use.count
    assert by_client == {"ann": 3, "bob": 2}


async def test_a_name_is_recorded_as_the_server_spells_it() -> None:
    async with recording_gateway() as there:
        for name in ("LLAMA3.2:3B", "registry.ollama.ai/library/llama3.2:3b"):
            await there.http.post("/api/generate", json=generate(name))
        await until_uses(there, 2)
        events = await there.events(ModelUsed)
    assert {event.stream for event in events} == {f"model/local/{MODEL}"}


async def test_a_client_that_left_is_recorded() -> None:
    async with recording_gateway() as there:
        await there.http.post("/api/generate", json=generate())
        await there.wait_for(ModelUsed)
        body = b'{"model":"llama3.2:3b","prompt":"x","options":{"num_predict":5000}}'
        async with raw_connection(there.address) as client:
            client.send(b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\n")
            client.send(b"Content-Length: %d\r\n\r\n" % len(body) + body)
            await client.head()
            await client.exactly(10)
            client.leave()
        use = used((await there.wait_for(ModelUsed, 2))[1])
        await until(lambda: there.world.seen[-1].ended == "closed by client", 1.0)
    assert use.outcome is UseOutcome.CLIENT_LEFT
    assert use.output_tokens is msgspec.UNSET


async def test_a_request_that_the_server_refused_changes_no_state() -> None:
    async with recording_gateway() as there:
        tools = [{"type": "function", "function": {"name": "x"}}]
        refused = {"model": "nomic-embed-text", "messages": [{}], "tools": tools}
        answer = await there.http.post("/api/chat", json=refused)
        assert answer.status_code == 400
        (event,) = await there.wait_for(UseFailed)
        status = await there.manager.get_status("nomic-embed-text")
    assert isinstance(event.data, UseFailed)
    assert event.data.outcome is UseOutcome.FAILED
    assert event.data.failure == "invalid_request"
    assert event.data.count == 1
    assert (status.state, status.uses) == (ModelState.AVAILABLE, 0)


async def test_an_endpoint_that_the_server_lacks_is_not_a_missing_model() -> None:
    async with recording_gateway() as there:
        answer = await there.http.post("/v1/systemone", json={"model": MODEL})
        assert (answer.status_code, answer.text) == (404, "404 page not found")
        (event,) = await there.wait_for(UseFailed)
    assert isinstance(event.data, UseFailed)
    assert event.data.failure == "refused"


async def test_a_model_that_does_not_exist_is_not_an_error_of_the_gateway() -> None:
    async with recording_gateway() as there:
        answer = await there.http.post("/api/generate", json=generate("nosuch:1b"))
        assert answer.status_code == 404
        assert answer.json() == {"error": "model 'nosuch:1b' not found"}
        await there.http.post("/api/generate", json=generate("bad name!"))
        await there.http.post("/api/generate", content=b"{")
        await there.http.post("/api/generate", json=generate())
        await there.wait_for(ModelUsed)
        assert await there.events(UseFailed, UsesNotRecorded) == []


async def test_a_model_that_the_log_does_not_know_is_found_by_its_use() -> None:
    async with recording_gateway() as there:
        async with httpx.AsyncClient(base_url=there.manager._client.base_url) as other:
            copied = {"source": MODEL, "destination": "mine"}
            await other.post("/api/copy", json=copied)
        await there.http.post("/api/generate", json=generate("mine"))
        (event,) = await there.wait_for(ModelUsed)
    assert event.stream == "model/local/mine:latest"


async def test_a_load_and_an_unload_are_recorded_as_such() -> None:
    async with recording_gateway() as there:
        await there.http.post("/api/generate", json={"model": MODEL})
        await there.wait_for_state(MODEL, ModelState.LOADED)
        unload = {"model": MODEL, "keep_alive": 0}
        await there.http.post("/api/generate", json=unload)
        await there.wait_for_state(MODEL, ModelState.AVAILABLE)
        assert await there.events(ModelUsed) == []


async def test_a_use_is_recorded_before_an_unload_that_follows_it() -> None:
    async with recording_gateway() as there:
        await there.http.post("/api/generate", json=generate())
        await there.wait_for(ModelUsed)
        await there.http.post("/api/generate", json=generate())
        unload = {"model": MODEL, "keep_alive": 0}
        await there.http.post("/api/generate", json=unload)
        (unloaded,) = await there.wait_for(ModelUnloaded)
        used_twice = await there.events(ModelUsed)
    assert [event.position < unloaded.position for event in used_twice] == [True, True]
    assert unloaded.actor == "gateway:127.0.0.1"


async def test_what_ends_a_use_is_recorded_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recorder, "COLLECT_S", 100.0)
    async with recording_gateway() as there:
        await there.manager.load(MODEL)

        async def last(count: int = 2) -> list[str]:
            events = await there.events(*AFTER_A_USE)
            return [event.type for event in events[-count:]]

        await there.http.post("/api/generate", json=generate())
        await there.manager.unload(MODEL)
        assert await last() == ["ModelUsed", "ModelUnloaded"]

        await there.manager.load(MODEL)
        await there.http.post("/api/generate", json=generate())
        async with httpx.AsyncClient(base_url=there.manager._client.base_url) as http:
            unload = {"model": MODEL, "keep_alive": 0}
            await http.post("/api/generate", json=unload)
        await there.manager.refresh()
        assert await last() == ["ModelUsed", "ModelUnloaded"]

        await there.manager.load(MODEL)
        body = generate(stream=True, options={"num_predict": 2_000})
        async with there.http.stream("POST", "/api/generate", json=body) as answer:
            lines = answer.aiter_lines()
            await anext(lines)
            there.world.kill()
            with pytest.raises(httpx.RemoteProtocolError):
                _ = [line async for line in lines]
        with pytest.raises(OllamaError):
            await there.manager.refresh()
        assert await last() == ["ModelUsed", "NodeLost"]

        there.world.start()
        await there.manager.refresh()
        await there.http.post("/api/generate", json=generate())
        await there.manager.delete(MODEL)
        assert await last(3) == ["ModelUsed", "ModelUnloaded", "ModelDeleted"]
        uses = await there.events(ModelUsed)
        assert [event.correlation_id for event in uses] == [None] * 4
        restarted = (await there.events(ModelUnloaded))[2].data
        assert isinstance(restarted, ModelUnloaded)
        assert restarted.reason is UnloadReason.SERVER_RESTARTED


async def test_uses_before_a_deletion_are_recorded_or_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "COLLECT_S", 100.0)
    log = tmp_path / "herd.db"
    async with recording_gateway(log=log) as there:
        await there.manager.load(MODEL)
        await there.http.post("/api/generate", json=generate())
        # A model that is gone before the log knows it.
        copied = {"source": MODEL, "destination": "brief"}
        await there.http.post("/api/copy", json=copied)
        answer = await there.http.post("/api/generate", json=generate("brief"))
        assert answer.status_code == 200
        for name in (MODEL, "brief"):
            await there.http.request("DELETE", "/api/delete", json={"model": name})
    async with ModelManager.open(log, ollama="127.0.0.1:9", refresh=False) as manager:
        assert (await manager.get_status(MODEL)).uses == 1
        (event,) = [
            event
            async for event in manager._storage.store.read_all()
            if isinstance(event.data, UsesNotRecorded)
        ]
    assert isinstance(event.data, UsesNotRecorded)
    assert event.data.count == 1
    assert event.data.reason == "brief:latest is no longer on the server"


def not_recorded(logs: Sequence[Mapping[str, Any]]) -> int:
    """Return the number of uses that could not be recorded so far."""
    counts = (line["requests"] for line in logs if line["event"] == "uses_not_recorded")
    return max(counts, default=0)


async def test_uses_are_counted_while_the_log_is_full_and_recorded_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with recording_gateway() as there:
        await there.http.post("/api/generate", json=generate())
        await there.wait_for(ModelUsed)
        store = there.manager._storage.store
        with monkeypatch.context() as patch:
            patch.setattr(store, "append", full)
            with capture_logs() as logs:
                for _ in range(3):
                    answer = await there.http.post("/api/generate", json=generate())
                    assert answer.status_code == 200
                await until(lambda: not_recorded(logs) == 3)
        (event,) = await there.wait_for(UsesNotRecorded)
        await there.http.post("/api/generate", json=generate())
        await there.wait_for(ModelUsed, 2)
        total = (await there.manager.usage()).total
        assert (total.requests, total.not_recorded) == (2, 3)

    missing = event.data
    assert isinstance(missing, UsesNotRecorded)
    assert missing.count == 3
    assert missing.since <= missing.until <= event.recorded_at
    assert missing.reason == "the log disk is full"


async def test_a_strict_gateway_refuses_uses_while_the_log_is_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with recording_gateway(strict=True) as there:
        await there.http.post("/api/generate", json=generate())
        await there.wait_for(ModelUsed)
        store = there.manager._storage.store
        with monkeypatch.context() as patch:
            patch.setattr(store, "append", full)
            with capture_logs() as logs:
                await there.http.post("/api/generate", json=generate())
                await until(lambda: not_recorded(logs) == 1)
            answer = await there.http.post("/v1/messages", json=generate())
            assert answer.status_code == 503
            assert answer.json()["error"] == {
                "type": "overloaded_error",
                "message": "Uses cannot be recorded now. Try again later.",
            }
            assert (await there.http.get("/api/tags")).status_code == 200
        await there.wait_for(UsesNotRecorded)
        answer = await there.http.post("/api/generate", json=generate())
        assert answer.status_code == 200


async def test_uses_that_are_left_are_recorded_when_the_gateway_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "COLLECT_S", 100.0)
    log = tmp_path / "herd.db"
    async with recording_gateway(log=log) as there:
        await there.http.post("/api/generate", json=generate())
        assert await there.events(ModelUsed) == []
    async with ModelManager.open(log, ollama="127.0.0.1:9", refresh=False) as manager:
        assert (await manager.get_status(MODEL)).uses == 1


async def full(*_: object, **__: object) -> None:
    raise StoreFullError("the log", "disk is full")


async def until_uses(there: RecordingGateway, count: int) -> None:
    async with asyncio.timeout(10):
        while (await there.manager.get_status(MODEL)).uses < count:
            await asyncio.sleep(0.02)


async def test_a_request_for_a_role_teaches_the_recommendation() -> None:
    async with recording_gateway(tokens=True) as there:
        best = await there.manager.recommend("coding")
        assert best is not None
        key = {"Authorization": "Bearer key-ann"}
        for _ in range(2):
            answer = await there.http.post(
                "/api/generate", json=generate(model="role:coding"), headers=key
            )
            assert answer.headers["x-herdbook-model"] == best.name
        await there.http.post("/api/generate", json=generate(), headers=key)
        async with asyncio.timeout(10):
            while (await there.manager.usage()).total.requests < 3:
                await asyncio.sleep(0.02)

        usage = await there.manager.usage(["role", "client", "model"])
        known = await there.manager.recommend("coding")
        other = await there.manager.recommend("general")

    found = {tuple(row.group.values()): row.requests for row in usage.rows}
    assert found == {
        ("coding", "ann", best.name): 2,
        (None, "ann", "llama3.2:3b"): 1,
    }
    assert known is not None
    assert (known.name, known.reasons[0]) == (best.name, "used for the coding role")
    assert other is not None
    assert other.name == "llama3.2:3b"


async def test_prompts_and_answers_are_never_recorded(tmp_path: Path) -> None:
    marks = ("zebra-prompt", "zebra-system", "zebra-input")
    async with recording_gateway(log=tmp_path / "herd.db") as there:
        answer = await there.http.post(
            "/api/generate",
            json={
                "model": MODEL,
                "prompt": marks[0],
                "system": marks[1],
                "stream": False,
            },
        )
        await there.http.post("/api/embed", json={"model": MODEL, "input": marks[2]})
        await there.wait_for(ModelUsed)
    said = answer.json()["response"]
    assert len(said) > 10

    for file in tmp_path.rglob("*"):
        data = file.read_bytes() if file.is_file() else b""
        assert not [text for text in (*marks, said) if text.encode() in data]


async def test_failed_request_by_role_is_recorded_with_the_role() -> None:
    async with recording_gateway() as there:
        body = generate("role:general", options={"num_ctx": "x"})
        answer = await there.http.post("/api/generate", json=body)
        assert answer.status_code == 500
        (event,) = await there.wait_for(UseFailed)
        usage = await there.manager.usage("role")

    assert isinstance(event.data, UseFailed)
    assert event.data.role == "general"
    (row,) = usage.rows
    assert (row.group["role"], row.requests, row.failed) == ("general", 1, 1)


@pytest.mark.parametrize(
    ("path", "more", "end"),
    [
        ("/api/chat", {}, b"\n"),
        ("/v1/chat/completions", {"max_tokens": 400}, b"\n\n"),
        ("/v1/messages", {"max_tokens": 400}, b"content_block_delta\n"),
    ],
)
async def test_tokens_of_a_client_that_left_are_estimated(
    path: str, more: dict[str, Any], end: bytes
) -> None:
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "a" * 4_000}],
        "stream": True,
        "options": {"num_predict": 400},
        **more,
    }
    async with recording_gateway() as there:
        async with there.http.stream("POST", path, json=body) as answer:
            received = b""
            async for piece in answer.aiter_raw():
                received += piece
                if received.count(end) >= 8:
                    break
        (event,) = await there.wait_for(ModelUsed)
        total = (await there.manager.usage("client")).total

    use = used(event)
    assert use.outcome is UseOutcome.CLIENT_LEFT
    assert use.output_tokens is msgspec.UNSET
    assert isinstance(use.estimated_tokens, int)
    # Anthropic's first event reports the tokens of the prompt.
    prompt = 0 if isinstance(use.prompt_tokens, int) else 1_000
    assert prompt + 8 <= use.estimated_tokens <= prompt + 150
    assert total.estimated_tokens == use.estimated_tokens
    assert total.output_tokens == 0


async def test_prompt_that_was_not_answered_counts_if_the_client_left() -> None:
    async with recording_gateway() as there:
        there.world.delays = lambda path: (5.0 * (path == "/api/chat"), 0.0)
        body = {"model": MODEL, "messages": [{"role": "user", "content": "a" * 40_000}]}
        with pytest.raises(httpx.TimeoutException):
            await there.http.post("/api/chat", json=body, timeout=0.1)
        (event,) = await there.wait_for(UseFailed)

    assert isinstance(event.data, UseFailed)
    assert event.data.outcome is UseOutcome.CLIENT_LEFT
    assert event.data.estimated_tokens == 4_096  # at most the usual context
