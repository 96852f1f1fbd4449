"""Limits of a token: models, concurrent requests, tokens per day."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support.gateway.recording import (
    LIMITS,
    RecordingGateway,
    recording_gateway,
    second_gateway,
)
from support.gateway.scripted import until
from support.uses import recorded, used

from herdbook.events.facts import ModelUsed
from herdbook.gateway.access.limits import Limits
from herdbook.gateway.access.quotas import Quotas
from herdbook.gateway.protocol.answers import Refusal

MODEL = "llama3.2:3b"
HEADERS = {"Authorization": "Bearer key-ann"}


@pytest.fixture(autouse=True)
def _no_limits() -> Iterator[None]:
    """Forget the limits of the last test."""
    LIMITS.clear()
    yield
    LIMITS.clear()


async def ask(there: RecordingGateway, path: str = "/api/generate", **body: Any) -> Any:
    given = {"model": MODEL, "prompt": "x", "stream": False} | body
    return await there.http.request("POST", path, json=given, headers=HEADERS)


@pytest.mark.parametrize(
    ("patterns", "model", "is_allowed"),
    [
        ((), "anything:7b", True),
        (("llama3*",), "llama3.2:3b", True),
        (("llama3*",), "qwen3:8b", False),
        (("llama3.2",), "llama3.2", True),
        (("llama3.2",), "llama3.2:latest", True),
        (("llama3.2",), "llama3.2:3b", False),
        (("LLAMA3*",), "llama3.2:3b", True),
        (("hf.co/*",), "hf.co/unsloth/x:Q4", True),
        (("*",), "not a name!", False),
    ],
)
def test_patterns_match_names(
    patterns: tuple[str, ...], model: str, is_allowed: bool
) -> None:
    assert Limits(models=patterns).allow(model) is is_allowed


async def test_token_uses_only_its_models() -> None:
    LIMITS["ann"] = Limits(models=("llama3*",))
    async with recording_gateway(tokens=True) as there:
        fine = await ask(there)
        refused = {
            path: await ask(there, path, model="qwen2.5-coder:7b")
            for path in ("/api/generate", "/v1/chat/completions", "/api/show")
        }
        role = await ask(there, model="role:coding")
        several = await ask(there, model=f"nosuch:1b,qwen2.5-coder:7b,{MODEL}")
        none = await ask(there, model="nosuch:1b,qwen2.5-coder:7b")
        deleted = await there.http.request(
            "DELETE",
            "/api/delete",
            json={"model": "qwen2.5-coder:7b"},
            headers=HEADERS,
        )

    assert fine.status_code == 200
    assert several.headers["X-Herdbook-Model"] == MODEL
    assert none.status_code == 403
    assert "may use none of the present models of 'nosuch:1b,qwen" in none.text
    assert role.status_code == 403
    assert "No model that the token may use fits the role 'coding'" in role.text
    for answer in (*refused.values(), deleted):
        assert answer.status_code == 403, answer.text
        assert "limited to the models llama3*" in answer.text


async def test_compressed_or_very_long_requests_cannot_avoid_the_check() -> None:
    LIMITS["ann"] = Limits(models=("llama3*",))
    async with recording_gateway(tokens=True, plain=True) as there:
        gzip = await there.http.post(
            "/api/generate",
            content=b"x",
            headers={**HEADERS, "Content-Encoding": "gzip"},
        )
        long = await ask(there, model="qwen2.5-coder:7b", prompt="x" * (17 << 20))

    assert gzip.status_code == 403
    assert long.status_code == 413


@pytest.mark.parametrize(
    "body",
    [
        '{"Model": "qwen2.5-coder:7b"}',
        '{"model": "llama3.2:3b", "MODEL": "qwen2.5-coder:7b"}',
        '{"model": "llama3.2:3b", "model": "qwen2.5-coder:7b"}',
        '{"model": "qwen2.5-coder:7b", "model": null}',
        '{"model": "qwen2.5-coder:7b"}{"model": "llama3.2:3b"}',
        '{"model": "qwen2.5-coder:7b"} x',
        '{"model": "role:general", "mOdel": "qwen2.5-coder:7b"}',
        "[]",
        "",
    ],
)
@pytest.mark.parametrize("plain", [False, True])
async def test_no_spelling_of_a_request_avoids_the_check(
    body: str, *, plain: bool
) -> None:
    LIMITS["ann"] = Limits(models=("llama3*",))
    async with recording_gateway(tokens=True, plain=plain) as there:
        answer = await there.http.post("/api/chat", content=body, headers=HEADERS)
        assert answer.status_code in {400, 403}, answer.text
        assert not [one for one in there.world.seen if one.path == "/api/chat"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/push", {"model": "qwen2.5-coder:7b"}),
        ("POST", "/api/show", {"name": "qwen2.5-coder:7b"}),
        ("POST", "/api/create", {"model": "llama3:x", "from": "qwen2.5-coder:7b"}),
        ("POST", "/api/copy", {"source": "qwen2.5-coder:7b", "destination": "llama3"}),
        ("POST", "/v1/messages/count_tokens", {"model": "qwen2.5-coder:7b"}),
        ("POST", "/api/unknown", {"model": "llama3.2:3b"}),
        ("GET", "/v1/models/qwen2.5-coder:7b", None),
    ],
)
async def test_other_paths_name_only_models_of_the_token(
    method: str, path: str, body: dict[str, str] | None
) -> None:
    LIMITS["ann"] = Limits(models=("llama3*",))
    async with recording_gateway(tokens=True) as there:
        answer = await there.http.request(method, path, json=body, headers=HEADERS)
    assert answer.status_code == 403, answer.text


async def test_streams_in_the_form_of_openai_count_for_a_budget() -> None:
    LIMITS["ann"] = Limits(tokens_per_day=1)
    async with recording_gateway(tokens=True) as there:
        asked = {"messages": [{"role": "user", "content": "x"}], "stream": True}
        streamed = await ask(there, "/v1/chat/completions", **asked)
        refused = await ask(there, "/v1/chat/completions", **asked)
    settings = streamed.headers["x-herdbook-settings"]
    assert settings == "stream_options.include_usage=true"
    assert refused.status_code == 429


async def test_token_is_limited_to_requests_at_once() -> None:
    LIMITS["ann"] = Limits(max_requests=2)
    async with recording_gateway(tokens=True) as there:
        many = [asyncio.ensure_future(ask(there)) for _ in range(6)]
        answers = await asyncio.gather(*many)
        later = await ask(there)

    codes = sorted(answer.status_code for answer in answers)
    assert codes == [200, 200, 429, 429, 429, 429]
    assert later.status_code == 200
    refused = next(one for one in answers if one.status_code == 429)
    assert refused.headers["Retry-After"] == "1"
    assert "limited to 2 requests at a time" in refused.json()["error"]


async def test_budget_of_a_day_is_counted_from_the_log(tmp_path: Path) -> None:
    LIMITS["ann"] = Limits(tokens_per_day=1)
    log = tmp_path / "herd.db"
    async with recording_gateway(tokens=True, log=log) as there:
        first = await ask(there)
        second = await ask(there, "/v1/chat/completions", messages=[])
        (event,) = await there.wait_for(ModelUsed)
        listed = await there.http.get("/api/tags", headers=HEADERS)
    assert first.status_code == listed.status_code == 200
    assert second.status_code == 429
    assert second.json()["error"]["type"] == "rate_limit_error"
    assert 0 < int(second.headers["Retry-After"]) <= 86_400
    assert isinstance(event.data, ModelUsed)
    assert event.data.output_tokens

    async with recording_gateway(tokens=True, log=log, follow=True) as restarted:
        third = await ask(restarted)
    assert third.status_code == 429


def test_budget_is_full_again_on_the_next_day() -> None:
    time = datetime(2026, 11, 27, 23, 59, tzinfo=UTC)
    quotas = Quotas({"ann": 5}, now=lambda: time)
    limits = Limits(tokens_per_day=5)
    with pytest.raises(Refusal) as refused:
        quotas.begin("ann", limits)
    assert refused.value.retry_after_s == 61

    time = datetime(2026, 11, 28, tzinfo=UTC)

    quotas.begin("ann", limits)
    quotas.spend("ann", 5)
    with pytest.raises(Refusal):
        quotas.begin("ann", limits)
    quotas.begin("ben", limits)


def test_tokens_recorded_yesterday_are_not_taken_from_those_of_today() -> None:
    time = before_midnight = datetime(2026, 11, 27, 23, 59, tzinfo=UTC)
    quotas = Quotas(now=lambda: time, followed=True)
    quotas.spend("ann", 5)
    quotas.recorded("ann", 5, position=1)
    time = datetime(2026, 11, 28, tzinfo=UTC)
    quotas.spend("ann", 5)

    quotas.apply(recorded(1, used(client="ann"), at=before_midnight))

    with pytest.raises(Refusal):
        quotas.begin("ann", Limits(tokens_per_day=5))


def test_nothing_is_kept_for_a_log_that_is_not_followed() -> None:
    quotas = Quotas()
    quotas.spend("ann", 5)
    tracemalloc.start()
    for position in range(10_000):
        quotas.recorded("ann", 5, position)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 100_000


async def test_gateways_on_one_log_share_a_budget(tmp_path: Path) -> None:
    LIMITS["ann"] = Limits(tokens_per_day=1)
    log = tmp_path / "herd.db"
    async with (
        recording_gateway(tokens=True, log=log) as there,
        second_gateway(there, log, tokens=True) as other,
    ):
        first = await ask(there)
        async with asyncio.timeout(10):
            while (await ask(other, "/api/chat")).status_code == 200:
                await asyncio.sleep(0.05)
    assert first.status_code == 200


async def test_client_that_leaves_cannot_avoid_its_budget() -> None:
    LIMITS["ann"] = Limits(tokens_per_day=20)
    asked = {"stream": True, "options": {"num_predict": 5_000}}
    async with recording_gateway(tokens=True) as there:
        codes = []
        for _ in range(12):
            body = {"model": MODEL, "prompt": "x", **asked}
            async with there.http.stream(
                "POST", "/api/generate", json=body, headers=HEADERS
            ) as answer:
                codes.append(answer.status_code)
                if answer.status_code == 200:
                    lines = answer.aiter_lines()
                    for _ in range(5):
                        await anext(lines)
            await until(lambda: all(one.ended for one in there.world.seen))
    assert codes[0] == 200
    assert codes[-1] == 429


async def test_role_is_answered_by_the_best_model_of_the_token() -> None:
    async with recording_gateway(tokens=True) as there:
        best = await ask(there, model="role:general")
        name = best.headers["X-Herdbook-Model"]
        LIMITS["ann"] = Limits(models=("smollm2*", "llama3*"))
        assert not LIMITS["ann"].allow(name)
        answer = await ask(there, model="role:general")
    assert answer.status_code == 200, answer.text
    assert LIMITS["ann"].allow(answer.headers["X-Herdbook-Model"])
