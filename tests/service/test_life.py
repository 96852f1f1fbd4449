"""The service process: without Ollama, with one that returns, and its end."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep
from typing import Any, NoReturn, cast

import httpx
import pytest
from support.cli_runner import SandboxThread
from support.disk import fill, small_disk
from support.ports import free_port
from support.service_program import (
    LONGEST_STOP,
    ServiceProcess,
    run_service,
    starting,
)
from support.waiting import wait_until

from herdbook.core import RunningOperation, StoreUnavailableError
from herdbook.sandbox import RealClock, World
from herdbook.service.api import health
from herdbook.service.app import composed

HERE = "gemma3:4b"


def test_service_starts_without_ollama_and_serves_the_log(
    tmp_path: Path, ollama: SandboxThread
) -> None:
    log = tmp_path / "herd.db"
    with run_service(log, ollama.address):
        pass
    ollama.apply(server="stopped")
    with run_service(log, ollama.address) as herdbook:
        ready = herdbook.get("/readyz")
        models = herdbook.get("/v1/models")

        assert (ready["status"], ready["node_reached"]) == ("ok", False)
        assert len(models) > 1
        assert all(model["stale_since"] for model in models)
        assert herdbook.types(HERE)[0] == "ModelDiscovered"
        refused = herdbook.operate("refresh")
        assert refused["error"]["code"] == "node_unreachable"


@pytest.mark.slow
def test_returned_server_is_noticed_automatically(tmp_path: Path) -> None:
    server = SandboxThread(World(models="some", clock=RealClock(speed=1)))
    try:
        with run_service(tmp_path / "herd.db", server.address) as herdbook:
            server.apply(server="stopped")
            wait_until(lambda: not herdbook.get("/readyz")["node_reached"])
            server.apply(server="started")
            wait_until(lambda: bool(herdbook.get("/readyz")["node_reached"]))

            node = herdbook.get("/v1/events?stream_prefix=node/")["events"]
    finally:
        server.close()

    assert [e["type"] for e in node] == ["NodeReached", "NodeLost", "NodeReached"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_service_stops_in_time_and_leaves_no_write_ahead_log(
    program: ServiceProcess, number: int
) -> None:
    program.operate("load", HERE)
    begun = monotonic()

    code = program.stop(number)

    assert code == 0
    assert monotonic() - begun < 5
    wal = program.log.with_name(f"{program.log.name}-wal")
    assert not wal.exists() or wal.stat().st_size == 0
    with sqlite3.connect(f"file:{program.log}?mode=ro", uri=True) as file:
        assert file.execute("SELECT position FROM head").fetchone()[0] > 5
    file.close()


def test_service_stops_in_time_while_the_server_hangs(
    tmp_path: Path, ollama: SandboxThread
) -> None:
    with run_service(tmp_path / "herd.db", ollama.address) as herdbook:
        ollama.apply(answer={"path": "/api/generate", "hang": True})
        body = {"kind": "load", "model": HERE}
        result = herdbook.http.post("/v1/operations", json=body).json()
        wait_until(lambda: "LoadStarted" in herdbook.types(HERE))

        assert herdbook.stop() == 0

    ollama.apply(server="stopped")
    with run_service(tmp_path / "herd.db", ollama.address) as again:
        assert again.types(HERE)[-1] == "LoadInterrupted"
        ended = again.get(f"/v1/operations/{result['id']}")
        assert ended["state"] == "interrupted"


def test_service_stops_in_time_while_it_starts(
    tmp_path: Path, ollama: SandboxThread
) -> None:
    ollama.apply(answer={"path": "/api/tags", "hang": True})
    with starting(tmp_path / "herd.db", ollama.address) as process:
        while not any(seen.path == "/api/tags" for seen in [*ollama.world.seen]):
            assert process.poll() is None
            sleep(0.02)
        process.send_signal(signal.SIGTERM)

        assert process.wait(LONGEST_STOP) == 0
        assert process.stdout is not None
        assert process.stdout.read() == ""  # no address: it never listened


IMPORTING = """
import signal, sys
from herdbook import cli
from herdbook.cli.programs import run_service

serve = run_service.serve

async def interrupted(*given):
    signal.raise_signal(signal.SIGTERM)
    await serve(*given)

run_service.serve = interrupted
sys.exit(cli.run(sys.argv[1:]))
"""
"""The command, which gets a signal after its imports and before it serves."""


def test_signal_during_the_imports_of_the_service_is_not_lost(
    tmp_path: Path, ollama: SandboxThread
) -> None:
    options = ["--port", "0", "--db", f"{tmp_path}/herd.db", "--ollama", ollama.address]
    with subprocess.Popen(
        [sys.executable, "-c", IMPORTING, "serve", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=20)
        finally:
            process.kill()

    assert (process.returncode, out, err) == (0, "", "")


def test_service_exits_with_0_after_a_failed_refresh(
    tmp_path: Path, ollama: SandboxThread
) -> None:
    with run_service(tmp_path / "herd.db", ollama.address) as herdbook:
        ollama.apply(server="stopped")
        refused = herdbook.operate("refresh")

        assert refused["error"]["code"] == "node_unreachable"
        assert herdbook.stop(signal.SIGTERM) == 0
        assert "Traceback" not in herdbook.errors.read_text()


def test_full_disk_is_reported_until_there_is_space_again(
    tmp_path: Path, ollama: SandboxThread
) -> None:
    path = f"/v1/models/{HERE}/uses"
    with (
        small_disk(tmp_path / "disk", "2m") as disk,
        run_service(disk / "herd.db", ollama.address) as herdbook,
    ):
        fill(disk / "ballast")
        purpose = {"purpose": "x" * 1000}
        deadline = monotonic() + 20
        while (used := herdbook.http.post(path, json=purpose)).is_success:
            assert monotonic() < deadline
        before = herdbook.get(f"/v1/models/{HERE}")["uses"]
        (disk / "ballast").unlink()
        again = herdbook.http.post(path, json=purpose)

        assert (used.status_code, used.json()["code"]) == (507, "store_full")
        assert again.status_code == 201
        assert again.json()["uses"] == before + 1
        assert herdbook.get("/readyz")["status"] == "ok"
        assert herdbook.stop() == 0


def test_stopping_service_starts_nothing(tmp_path: Path) -> None:
    """Clients that still hold a connection are covered in test_operations."""
    with run_service(tmp_path / "herd.db", "127.0.0.1:9") as herdbook:
        assert herdbook.stop() == 0
        with pytest.raises(httpx.TransportError):
            herdbook.http.get("/healthz")


def test_address_is_the_first_line(tmp_path: Path) -> None:
    port = free_port()
    with run_service(tmp_path / "herd.db", "127.0.0.1:9", port=port) as herdbook:
        assert herdbook.address == f"http://127.0.0.1:{port}"
        assert herdbook.get("/healthz")["status"] == "ok"


def test_port_in_use_is_reported(tmp_path: Path, program: ServiceProcess) -> None:
    with (
        pytest.raises(AssertionError, match="is already in use"),
        run_service(tmp_path / "other.db", "127.0.0.1:9", port=program.port),
    ):
        pass


def test_listening_beyond_loopback_requires_tokens(tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match="token"),
        run_service(tmp_path / "herd.db", "127.0.0.1:9", "--host", "0.0.0.0"),
    ):
        pass


def test_log_lines_are_json_if_configured(
    tmp_path: Path, ollama: SandboxThread
) -> None:
    options = ("--log-format", "json")
    with run_service(tmp_path / "herd.db", ollama.address, *options) as herdbook:
        herdbook.get("/v1/models?state=loaded")

    lines = [json.loads(line) for line in herdbook.errors.read_text().splitlines()]
    request = next(line for line in lines if line.get("path") == "/v1/models")
    assert (request["method"], request["status"]) == ("GET", 200)
    assert request["actor"] == "api:local"


def test_metrics_have_the_documented_values(program: ServiceProcess) -> None:
    program.operate("pull", "qwen3:0.6b")
    program.operate("load", HERE)

    answer = program.http.get("/metrics")

    text = answer.text
    values = {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if not line.startswith("#")
    }
    assert answer.headers["content-type"].startswith("text/plain; version=")
    head = program.get("/v1/log/head")["position"]
    assert head - 3 <= values["herdbook_log_head_position"] <= head
    assert values["herdbook_projection_lag_events"] == 0
    assert values["herdbook_append_seconds_count"] > 3
    appended = values["herdbook_events_appended_total"]
    assert appended == values["herdbook_log_head_position"]
    assert values['herdbook_models{state="loaded"}'] == 1
    assert values['herdbook_operations{kind="pull",state="succeeded"}'] == 1
    assert values["herdbook_pulled_bytes_total"] > 100_000_000
    assert values['herdbook_node_up{node="local"}'] == 1
    asked = 'herdbook_ollama_request_seconds_count{method="POST",path="/api/pull"}'
    assert values[asked] == 1
    assert values["herdbook_log_wal_bytes"] > 0


def test_failures_of_ollama_are_counted(program: ServiceProcess) -> None:
    program.operate("pull", "no-such-model:1b")

    text = program.http.get("/metrics").text
    assert (
        'herdbook_ollama_failures_total{kind="not_in_registry",path="/api/pull"}'
        in (text)
    )


async def test_failing_task_makes_the_service_unready_and_is_named(
    tmp_path: Path,
) -> None:
    log = tmp_path / "herd.db"
    async with composed(log, ollama="127.0.0.1:9") as (made, application):
        transport = httpx.ASGITransport(app=cast("Any", application))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://127.0.0.1:11435"
        ) as http:
            assert (await http.get("/readyz")).json()["failing"] == []
            made.manager.under_way = fails  # type: ignore[method-assign]  # a fault
            async with asyncio.timeout(10):
                while (unready := await http.get("/readyz")).status_code == 200:
                    await asyncio.sleep(0.01)

            assert unready.status_code == 503
            assert unready.json()["status"] == "task_failing"
            (failing,) = unready.json()["failing"]
            assert (failing["task"], failing["code"]) == ("progress", "OverflowError")
            assert (await http.get("/healthz")).status_code == 200
            assert 'herdbook_task_up{task="progress"} 0.0' in await metrics_of(http)
            page = (await http.get("/node", headers={"accept": "text/html"})).text
            assert "restarting, failing since" in page
            assert "unexpected error: OverflowError: a number" in page

            del made.manager.under_way
            async with asyncio.timeout(10):
                while (await http.get("/readyz")).status_code != 200:
                    await asyncio.sleep(0.01)
            text = await metrics_of(http)
            assert 'herdbook_task_up{task="progress"} 1.0' in text
            assert 'herdbook_task_up{task="reconciler"} 1.0' in text
            assert 'herdbook_task_restarts_total{task="reconciler"} 0.0' in text
            assert 'herdbook_task_restarts_total{task="progress"} 0.0' not in text


async def test_readiness_names_a_live_stream_that_lost_the_log(
    tmp_path: Path,
) -> None:
    log, away = tmp_path / "herd.db", tmp_path / "away.db"
    async with composed(log, ollama="127.0.0.1:9") as (made, application):
        transport = httpx.ASGITransport(app=cast("Any", application))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://127.0.0.1:11435"
        ) as http:
            log.rename(away)
            async with asyncio.timeout(10):
                while not made.live.failed:
                    await asyncio.sleep(0.01)
            made.manager.head = lost  # type: ignore[method-assign]  # a fault
            away.rename(log)

            unready = await http.get("/readyz")
            assert unready.status_code == 503
            assert unready.json()["status"] == "log_failed"

            del made.manager.head
            async with asyncio.timeout(10):
                while (await http.get("/readyz")).status_code != 200:
                    await asyncio.sleep(0.01)


async def test_readiness_is_refused_at_once_if_the_log_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "READY_WITHIN_S", 0.05)
    async with composed(tmp_path / "herd.db", ollama="127.0.0.1:9") as (made, app):
        transport = httpx.ASGITransport(app=cast("Any", app))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://127.0.0.1:11435"
        ) as http:
            monkeypatch.setattr(made.fleet, "now", asyncio.Event().wait)
            unready = await http.get("/readyz")

    assert unready.status_code == 503
    assert unready.json()["status"] == "store_unavailable"


async def lost() -> NoReturn:
    raise StoreUnavailableError("log", "is lost", "Find it")


def fails() -> list[RunningOperation]:
    raise OverflowError("a number")


async def metrics_of(http: httpx.AsyncClient) -> str:
    return (await http.get("/metrics")).text


def test_deleted_log_is_reported_immediately(
    program: ServiceProcess,
) -> None:
    for file in program.log.parent.glob(f"{program.log.name}*"):
        if file.is_file() and file.suffix != ".stderr":
            file.unlink()

    used = program.http.post(f"/v1/models/{HERE}/uses")
    ready = program.http.get("/readyz")

    assert (used.status_code, used.json()["code"]) == (503, "store_unavailable")
    assert "moved, deleted or replaced" in used.json()["state"]
    assert ready.status_code == 503
    assert program.http.get("/healthz").status_code == 200
    assert program.stop() == 0
