"""Metrics of the gateway: requests, tokens and durations by model and outcome."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from support.gateway.recording import recording_gateway
from support.gateway.scripted import until

from herdbook.events.facts import UseOutcome
from herdbook.service.metrics import MOST_MODELS, Metrics

MODEL = "llama3.2:3b"


def value(metrics: Metrics, name: str, **labels: str) -> float:
    """Return the value of a sample; 0 if there is none."""
    return metrics.registry.get_sample_value(f"herdbook_gateway_{name}", labels) or 0.0


async def test_requests_are_counted_by_model_and_outcome() -> None:
    metrics = Metrics(":memory:")
    async with recording_gateway(observer=metrics.gateway) as there:
        body = {"model": MODEL, "prompt": "x", "stream": False}
        answers = [
            (await there.http.post("/api/generate", json=body)).json() for _ in range(3)
        ]
        await there.http.post(
            "/api/generate", json={**body, "options": {"num_ctx": "x"}}
        )
        await there.http.get("/api/tags")
        await until(lambda: value(metrics, "in_flight") == 0)

    model = {"model": MODEL}
    completed = {**model, "outcome": "completed"}
    prompt = sum(answer["prompt_eval_count"] for answer in answers)
    output = sum(answer["eval_count"] for answer in answers)
    assert value(metrics, "requests_total", **completed) == 3
    assert value(metrics, "requests_total", **model, outcome="failed") == 1
    assert value(metrics, "tokens_total", **model, kind="prompt") == prompt
    assert value(metrics, "tokens_total", **model, kind="output") == output
    assert value(metrics, "request_seconds_count", **completed) == 3
    assert value(metrics, "first_token_seconds_count", **model) == 3
    assert value(metrics, "first_token_seconds_sum", **model) > 0
    assert b"herdbook_gateway_in_flight 0.0" in exposition(metrics)


def exposition(metrics: Metrics) -> bytes:
    """Return the metrics as Prometheus reads them."""
    from prometheus_client.exposition import generate_latest  # noqa: PLC0415

    return generate_latest(metrics.registry)


async def test_clients_cannot_make_labels_without_end() -> None:
    metrics = Metrics(":memory:")
    async with recording_gateway(observer=metrics.gateway) as there:
        for number in range(20):
            body = {"model": f"nosuch{number}:1b", "prompt": "x"}
            await there.http.post("/api/generate", json=body)
        for name in (MODEL, MODEL.upper(), f"library/{MODEL}"):
            body = {"model": name, "prompt": "x"}
            await there.http.post("/api/generate", json=body)

    other = {"model": "other", "outcome": "failed"}
    assert value(metrics, "requests_total", **other) == 20
    spelled = {"model": MODEL, "outcome": "completed"}
    assert value(metrics, "requests_total", **spelled) == 3


class Answered(NamedTuple):
    """A request that a model answered."""

    model: str
    duration_s: float = 1.0
    first_token_s: float | None = 0.5
    outcome: UseOutcome = UseOutcome.COMPLETED
    tokens: tuple[int, int] = (1, 1)


def test_models_without_end_share_a_label() -> None:
    metrics = Metrics(":memory:")
    for number in range(MOST_MODELS + 5):
        metrics.gateway.used(Answered(f"made{number}:1b"))
    completed = {"outcome": "completed"}
    assert value(metrics, "requests_total", model="other", **completed) == 5
    assert value(metrics, "requests_total", model="made0:1b", **completed) == 1


@pytest.mark.parametrize("name", ["", "x" * 300])
async def test_names_that_are_not_labels(name: str) -> None:
    metrics = Metrics(":memory:")
    async with recording_gateway(observer=metrics.gateway) as there:
        await there.http.post("/api/generate", json={"model": name, "prompt": "x"})

    counted = value(metrics, "requests_total", model="other", outcome="failed")
    assert counted == (1 if name else 0)
