"""Two services with two nodes on one log: they see each other, live and die alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from time import monotonic

import pytest
from support.cli_runner import Herdbook, SandboxThread
from support.postgres.fixture import with_schema
from support.service_program import ServiceProcess, run_service
from support.waiting import wait_until

from herdbook.events.postgres.address import PostgresAddress

BIG = "llama3.2:1b"
LOADED = "llama3.2:3b"
NODES = ["gpu1", "local"]
PULL = {"kind": "pull", "model": BIG, "node": "gpu1"}
RELOAD = {"kind": "load", "model": LOADED, "options": {"num_ctx": 512}}
HANGS = {"path": "/api/generate", "times": 0, "hang": True}
TAKEN_OVER_S = 15.0
"""Longest time until another instance does what a killed one did."""


@pytest.fixture(params=["PostgreSQL", "SQLite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "SQLite":
        return str(tmp_path / "shared.db")
    address: PostgresAddress = request.getfixturevalue("address")
    return with_schema(address.url, address.schema)


@pytest.fixture
def other_server(serving: Callable[..., SandboxThread]) -> SandboxThread:
    return serving(models="none")


@pytest.fixture
def services(
    tmp_path: Path, server: SandboxThread, other_server: SandboxThread, url: str
) -> Iterator[tuple[ServiceProcess, ServiceProcess]]:
    with (
        run_service(tmp_path / "one", server.address, "--db", url) as one,
        run_service(tmp_path / "other", server.address, "--db", url) as other,
    ):
        node = {"name": "gpu1", "url": other_server.address}
        assert other.http.post("/v1/nodes", json=node).status_code == 201
        refresh = {"kind": "refresh", "node": "gpu1"}
        wait_until(lambda: one.http.post("/v1/operations", json=refresh).is_success, 20)
        yield one, other


def streamed(service: ServiceProcess, after: int) -> str:
    """Return the type of the next event of the live stream."""
    path = f"/v1/events/stream?after={after}"
    with service.http.stream("GET", path) as answer:
        lines = (line for line in answer.iter_lines() if line.startswith("data:"))
        kind: str = json.loads(next(lines).removeprefix("data:"))["type"]
    return kind


@pytest.mark.timeout(150)
def test_services_show_and_cancel_the_work_of_each_other_and_survive_a_kill(
    services: tuple[ServiceProcess, ServiceProcess],
    server: SandboxThread,
    other_server: SandboxThread,
    herdbook: Herdbook,
    url: str,
) -> None:
    one, other = services
    assert one.operate("load", LOADED)["state"] == "succeeded"
    assert other.get(f"/v1/models/{LOADED}")["state"] == "loaded"
    newest = other.get("/v1/events?newest_first=true&limit=1")["events"][0]
    assert one.http.post(f"/v1/models/{LOADED}/uses", json={}).is_success
    assert streamed(other, newest["position"]) == "ModelUsed"
    other_server.apply(registry={"rate": 100_000})  # an hour, at the speed of the tests

    pull = begun(one, other, PULL)
    cancelled = other.http.delete(f"/v1/operations/{pull}").json()
    assert cancelled["state"] == "cancelled"
    assert one.get(f"/v1/operations/{pull}")["state"] == "cancelled"

    server.apply(answer=HANGS)
    reload = begun(one, other, RELOAD)
    assert other.get(f"/v1/models/{LOADED}")["activity"] == "reload"
    (listed,) = herdbook("ls", "--db", url, "--state", "loaded", "--json").json
    assert (listed["name"], listed["activity"]) == (LOADED, "reload")
    assert "loaded, reloading" in other.http.get("/").text
    question = other.http.get(f"/models/{LOADED}/cancel?node=local").text
    assert f"Cancel the reload of {LOADED}?" in question
    assert "The model may no longer be in memory afterwards." in question
    assert "Keep loading" in question
    cancelled = other.http.delete(f"/v1/operations/{reload}").json()
    assert cancelled["state"] == "cancelled"
    path = f"/v1/operations/{reload}"
    wait_until(lambda: one.get(path)["state"] == "cancelled", 20)
    server.apply(answer=None)
    assert one.operate("load", LOADED)["state"] == "succeeded"
    server.apply(answer=HANGS)

    begun(one, other, PULL)
    begun(one, other, RELOAD)
    one.kill()
    killed_at = monotonic()
    wait_until(lambda: "PullInterrupted" in types(other, BIG), TAKEN_OVER_S)
    wait_until(lambda: "ReloadInterrupted" in types(other, LOADED), TAKEN_OVER_S)
    server.apply(answer=None)
    wait_until(lambda: sorted(other.get("/readyz")["refreshes"]) == NODES, TAKEN_OVER_S)

    assert monotonic() - killed_at < TAKEN_OVER_S
    assert other.get(f"/v1/models/{BIG}?node=gpu1")["state"] == "not_present"
    assert other.get(f"/v1/models/{LOADED}?node=local")["present"]
    assert other.operate("unload", LOADED)["state"] == "succeeded"
    assert other.http.get("/readyz").status_code == 200
    assert herdbook("verify", "--db", url, "--json").json["findings"] == []
    assert herdbook("doctor", "--db", url).code == 0


def begun(
    one: ServiceProcess, other: ServiceProcess, wanted: Mapping[str, object]
) -> str:
    """Begin an operation; return its id once another service shows it."""
    started = one.http.post("/v1/operations", json=wanted)
    assert started.status_code == 202
    key: str = started.json()["id"]
    wait_until(
        lambda: key in [each["id"] for each in other.get("/v1/operations")],
        20,
    )
    return key


def types(service: ServiceProcess, model: str) -> set[str]:
    """Return the types of the events of a model on its node."""
    node = "gpu1" if model == BIG else "local"
    history = service.get(f"/v1/models/{model}/history?node={node}&limit=1000")
    return {entry["type"] for entry in history}
