"""Roles, fallback lists and settings: what the gateway changes in a request."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from support.gateway.recording import RecordingGateway, recording_gateway
from support.gateway.scripted import raw_connection

from herdbook.events.facts import ModelUsed, Setting
from herdbook.gateway.connections import exchange
from herdbook.gateway.protocol.endpoints import endpoint_of
from herdbook.gateway.protocol.json_bodies import request_fields_if_any
from herdbook.gateway.recording import recorder
from herdbook.gateway.rewriting.requests import Rewriter

MODEL = "llama3.2:3b"
CODER = "qwen2.5-coder:7b"
SETTINGS: dict[str, Setting] = {
    "num_ctx": 8192,
    "temperature": 0.2,
    "keep_alive": "10m",
}


@asynccontextmanager
async def configured() -> AsyncIterator[tuple[RecordingGateway, Rewriter]]:
    """Serve a gateway; one model has settings."""
    async with recording_gateway() as there:
        await there.manager.configure(MODEL, SETTINGS)
        yield there, Rewriter(there.manager.uses)


def rewritten(rewriter: Rewriter, path: str, body: str) -> str | None:
    endpoint = endpoint_of("POST", path.encode())
    changed = rewriter.rewrite(endpoint, request_fields_if_any(body.encode()))
    return None if changed is None else changed.body.decode()


async def test_settings_are_added_where_a_request_lacks_them() -> None:
    async with configured() as (_, rewriter):
        expected = {
            ("/api/chat", '{"model":"%s","x":1.0e5}'): (
                '{"model":"%s","x":1.0e5,'
                '"options":{"num_ctx":8192,"temperature":0.2},"keep_alive":"10m"}'
            ),
            ("/api/chat", '{"model":"%s","options":{"num_ctx":2,"y":1.50}}'): (
                '{"model":"%s","options":{"num_ctx":2,"y":1.50,"temperature":0.2},'
                '"keep_alive":"10m"}'
            ),
            ("/api/generate", '{"keep_alive":null,"model":"%s","options":{}}'): (
                '{"keep_alive":null,"model":"%s",'
                '"options":{"num_ctx":8192,"temperature":0.2}}'
            ),
            ("/v1/chat/completions", '{"model":"%s"}'): (
                '{"model":"%s","temperature":0.2}'
            ),
            ("/v1/messages", '{"model":"%s","temperature":1}'): None,
            ("/v1/embeddings", '{"model":"%s"}'): None,
        }
        for (path, body), changed in expected.items():
            wanted = None if changed is None else changed % MODEL
            assert rewritten(rewriter, path, body % MODEL) == wanted


async def test_settings_that_override_replace_those_of_a_request() -> None:
    async with configured() as (there, rewriter):
        await there.manager.configure(MODEL, {"override": True})
        expected = {
            ("/api/chat", '{"model":"%s","options":{"num_ctx":2,"y":1.50}}'): (
                '{"model":"%s","options":{"num_ctx":8192,"y":1.50,"temperature":0.2},'
                '"keep_alive":"10m"}'
            ),
            ("/v1/messages", '{"model":"%s","temperature":1}'): (
                '{"model":"%s","temperature":0.2}'
            ),
        }
        for (path, body), changed in expected.items():
            assert rewritten(rewriter, path, body % MODEL) == changed % MODEL
        # What is the same already is not changed, and an unload stays an unload.
        same = '{"model":"%s","options":{"num_ctx":8192,"temperature":0.2},'
        for keep_alive in ('"keep_alive":"10m","prompt":"x"}', '"keep_alive":0}'):
            body = same % MODEL + keep_alive
            assert rewritten(rewriter, "/api/generate", body) is None
        answer = await there.http.post(
            "/api/generate",
            json={"model": MODEL, "options": {"num_ctx": 4096}, "keep_alive": -1},
        )
    assert answer.headers["x-herdbook-settings"] == (
        "num_ctx=8192 (was 4096), temperature=0.2, keep_alive=10m (was -1)"
    )


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "[]",
        "7",
        '{"model":7}',
        '{"prompt":"x"}',
        '{"model":"bad name!"}',
        '{"model":"nosuch:1b"}',
        '{"model":"gemma3:4b","options":{}}',
        '{"model":"llama3.2:3b","options":7}',
    ],
)
async def test_other_requests_are_not_changed(body: str) -> None:
    async with configured() as (_, rewriter):
        assert rewritten(rewriter, "/api/chat", body) is None


async def test_a_role_is_answered_by_its_best_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recorder, "COLLECT_S", 0.1)
    async with configured() as (there, _):
        best = (await there.manager.now()).recommend("coding")
        assert best is not None
        asked = {"model": "role:coding", "prompt": "x", "options": {"num_predict": 1}}
        answer = await there.http.post("/api/generate", json=asked)
        (event,) = await there.wait_for(ModelUsed)

    assert answer.status_code == 200
    assert json.loads(answer.text.splitlines()[0])["model"] == best.name == CODER
    assert answer.headers["x-herdbook-model"] == CODER
    assert answer.headers["x-herdbook-reason"].startswith("role coding: ")
    assert "x-herdbook-settings" not in answer.headers
    assert isinstance(event.data, ModelUsed)
    assert event.data.role == "coding"
    assert event.stream == f"model/local/{CODER}"


async def test_a_list_is_answered_by_its_first_present_model() -> None:
    async with configured() as (there, _):
        asked = {"model": f"nosuch:1b, bad name!, {MODEL},gemma3:4b", "prompt": "x"}
        answer = await there.http.post("/v1/completions", json=asked)
    assert answer.json()["model"] == MODEL
    assert answer.headers["x-herdbook-model"] == MODEL
    assert answer.headers["x-herdbook-reason"] == f"first of {asked['model']}"
    assert answer.headers["x-herdbook-settings"] == "temperature=0.2"


async def test_request_that_no_model_fits_is_refused_in_the_form_of_the_api() -> None:
    async with configured() as (there, _):
        role = await there.http.post("/api/chat", json={"model": "role:codign"})
        names = await there.http.post("/v1/messages", json={"model": "a:1,b:2"})
        for name in (CODER, MODEL, "gemma3:4b"):
            await there.http.request("DELETE", "/api/delete", json={"model": name})
        await there.manager.refresh()
        vision = await there.http.post(
            "/v1/chat/completions", json={"model": "role:vision"}
        )
    assert role.status_code == names.status_code == vision.status_code == 404
    assert "codign" in role.json()["error"]
    assert "coding" in role.json()["error"]
    assert names.json()["error"] == {
        "type": "not_found_error",
        "message": "The server has none of the models 'a:1,b:2'.",
    }
    text = "No model on the server fits the role 'vision'."
    assert vision.json()["error"]["message"] == text


async def test_the_server_gets_the_settings() -> None:
    async with configured() as (there, _):
        answer = await there.http.post(
            "/api/generate", json={"model": MODEL, "prompt": "x"}
        )
        (runner,) = (await there.http.get("/api/ps")).json()["models"]
    text = "num_ctx=8192, temperature=0.2, keep_alive=10m"
    assert answer.headers["x-herdbook-settings"] == text
    assert runner["context_length"] == 8192


async def test_a_plain_gateway_changes_nothing() -> None:
    async with recording_gateway(plain=True) as there:
        await there.manager.configure(MODEL, SETTINGS)
        asked: dict[str, Any] = {"model": MODEL, "prompt": "x"}
        answer = await there.http.post("/api/generate", json=asked)
        (runner,) = (await there.http.get("/api/ps")).json()["models"]
        role = await there.http.post("/api/chat", json={"model": "role:coding"})
    assert not any(name.startswith("x-herdbook") for name in answer.headers)
    assert runner["context_length"] != 8192
    assert role.json() == {"error": "model 'role:coding' not found"}


async def test_chunks_are_collected_and_sent_with_a_length() -> None:
    async with configured() as (there, _):
        async with raw_connection(there.address) as client:
            client.send(
                b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n"
            )
            for part in (b'{"model":"llama', b'3.2:3b","prompt"', b':"x"}'):
                client.send(b"%x\r\n%b\r\n" % (len(part), part))
            client.send(b"0\r\n\r\n")
            assert b"X-Herdbook-Settings: num_ctx=8192" in await client.head()


async def test_a_long_request_is_relayed_unchanged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exchange, "LONGEST_BODY", 1_000)
    async with configured() as (there, _):
        asked = {"model": MODEL, "prompt": "x" * 300_000}
        answer = await there.http.post("/api/generate", json=asked)
        compressed = await there.http.post(
            "/api/generate", content=b"x", headers={"Content-Encoding": "gzip"}
        )
    assert answer.status_code == 200
    assert "x-herdbook-settings" not in answer.headers
    assert compressed.status_code == 400


def test_values_that_are_not_changed_keep_their_bytes() -> None:
    raw_value = msgspec.Raw(b'{"a":1.50}')
    assert msgspec.json.encode({"x": raw_value}) == b'{"x":{"a":1.50}}'
