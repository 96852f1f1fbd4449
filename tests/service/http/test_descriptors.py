"""Few file descriptors: the service limits its connections."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from time import monotonic

import httpx
from support.cli_runner import SandboxThread
from support.service_program import run_service


def test_many_connections_with_few_file_descriptors(
    tmp_path: Path, ollama: SandboxThread
) -> None:
    with (
        run_service(tmp_path / "herd.db", ollama.address, files=40) as running,
        contextlib.ExitStack() as opened,
    ):
        until = monotonic() + 6  # as long as the next look at the server takes to come
        asked = 0
        while monotonic() < until:
            for _ in range(10):
                silent = socket.create_connection(("127.0.0.1", running.port))
                opened.enter_context(silent)
            for path in ("/healthz", "/v1/models"):
                answer = httpx.get(f"{running.address}{path}", trust_env=False)
                assert answer.status_code == 200
            asked += 1
        types = {event["type"] for event in running.get("/v1/events")["events"]}
        log = running.errors.read_text()

    assert asked > 10
    assert "ModelDiscovered" in types
    assert "NodeLost" not in types
    assert "Traceback" not in log
    assert log.count("connection_not_accepted") <= 2
