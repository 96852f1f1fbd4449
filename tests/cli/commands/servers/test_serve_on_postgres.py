"""Two services on one log in a database: they see each other, live and die alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep

import pytest
from support.cli_runner import Herdbook, SandboxThread
from support.service_program import ServiceProcess, run_service

from herdbook.events.postgres.address import PostgresAddress

BIG = "llama3.2:1b"
LOADED = "llama3.2:3b"
TAKEN_OVER_S = 15.0
"""Longest time until the work of a killed instance is recorded as interrupted."""


@pytest.fixture
def url(address: PostgresAddress) -> str:
    joint = "&" if "?" in address.url else "?"
    return f"{address.url}{joint}schema={address.schema}"


@pytest.fixture
def services(
    tmp_path: Path, server: SandboxThread, url: str
) -> Iterator[tuple[ServiceProcess, ServiceProcess]]:
    with (
        run_service(tmp_path / "one", server.address, "--db", url) as one,
        run_service(tmp_path / "other", server.address, "--db", url) as other,
    ):
        yield one, other


def streamed(service: ServiceProcess, after: int) -> str:
    """Return the type of the next event of the live stream."""
    path = f"/v1/events/stream?after={after}"
    with service.http.stream("GET", path) as answer:
        lines = (line for line in answer.iter_lines() if line.startswith("data:"))
        kind: str = json.loads(next(lines).removeprefix("data:"))["type"]
    return kind


@pytest.mark.timeout(120)
def test_services_show_the_work_of_each_other_and_survive_a_kill(
    services: tuple[ServiceProcess, ServiceProcess],
    server: SandboxThread,
    herdbook: Herdbook,
    url: str,
    tmp_path: Path,
) -> None:
    one, other = services
    assert one.operate("load", LOADED)["state"] == "succeeded"
    assert other.get(f"/v1/models/{LOADED}")["state"] == "loaded"
    newest = other.get("/v1/events?newest_first=true&limit=1")["events"][0]
    assert one.http.post(f"/v1/models/{LOADED}/uses", json={}).is_success
    assert streamed(other, newest["position"]) == "ModelUsed"
    server.apply(registry={"rate": 100_000})  # an hour, at the speed of the tests
    started = one.http.post("/v1/operations", json={"kind": "pull", "model": BIG})
    assert started.status_code == 202
    until(lambda: "PullStarted" in types(other, BIG), 20)

    one.kill()
    killed_at = monotonic()
    until(lambda: is_interrupted(other), TAKEN_OVER_S)

    assert monotonic() - killed_at < TAKEN_OVER_S
    assert other.operate("unload", LOADED)["state"] == "succeeded"
    assert other.http.get("/readyz").status_code == 200
    assert herdbook("verify", "--db", url, "--json").json["findings"] == []
    assert herdbook("doctor", "--db", url).code == 0


def types(service: ServiceProcess, model: str) -> set[str]:
    """Return the types of a model's events; none if the service does not know it."""
    answer = service.http.get(f"/v1/models/{model}/history?limit=1000")
    return {entry["type"] for entry in answer.json()} if answer.is_success else set()


def is_interrupted(service: ServiceProcess) -> bool:
    service.operate("refresh")
    return "PullInterrupted" in types(service, BIG)


def until(holds: Callable[[], bool], within_s: float) -> None:
    deadline = monotonic() + within_s
    while not holds():
        assert monotonic() < deadline
        sleep(0.1)
