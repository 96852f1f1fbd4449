"""The verb gateway, as a process, and the gateway of serve."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.cli_runner import Herdbook, SandboxThread

from herdbook.cli.app import _fastest_loop

MODEL = "llama3.2:3b"
ASKED = {"model": MODEL, "prompt": "hi", "options": {"num_predict": 2}}


@contextmanager
def running(*words: str, lines: int) -> Iterator[list[str]]:
    """Run a verb that serves; give its first lines."""
    command = [sys.executable, "-m", "herdbook.cli", *words]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=dict(os.environ),
    ) as process:
        assert process.stdout is not None
        first = [process.stdout.readline().strip() for _ in range(lines)]
        try:
            yield first
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 0
        finally:
            process.kill()


def uses(herdbook: Herdbook) -> list[dict[str, Any]]:
    """Return the data of the recorded uses."""
    lines = herdbook("log", "--json").json
    return [
        event["data"] | {"actor": event["actor"]}
        for event in lines
        if event["type"] == "ModelUsed"
    ]


@pytest.mark.slow
def test_gateway_relays_and_records(
    server: SandboxThread, log: Path, herdbook: Herdbook
) -> None:
    with running("gateway", "--listen", "127.0.0.1:0", lines=2) as (address, second):
        answer = httpx.post(f"{address}/api/generate", json=ASKED, trust_env=False)
        assert answer.status_code == 200

    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", address)
    assert second == f"Forwarding to {server.address}. Log: {log}. Stop with Ctrl-C."
    (use,) = uses(herdbook)
    assert (use["actor"], use["output_tokens"]) == ("gateway:127.0.0.1", 2)


@pytest.mark.slow
def test_gateway_serves_its_metrics(server: SandboxThread, log: Path) -> None:
    words = ("--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0")
    with running("gateway", *words, lines=2) as (address, second):
        httpx.post(f"{address}/api/generate", json=ASKED, trust_env=False)
        text = httpx.get(second.removeprefix("Metrics: "), trust_env=False).text

    requests = f'herdbook_gateway_requests_total{{model="{MODEL}",outcome="completed"}}'
    assert f"{requests} 1.0" in text
    assert f'herdbook_gateway_tokens_total{{kind="output",model="{MODEL}"}} 2.0' in text


def test_metrics_of_the_gateway_need_a_valid_free_address(
    server: SandboxThread, log: Path, herdbook: Herdbook
) -> None:
    words = ("gateway", "--listen", "127.0.0.1:0", "--metrics")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        in_use = herdbook(*words, f"127.0.0.1:{port}")
    assert in_use.code == 2
    assert f"port {port} on 127.0.0.1 is already in use" in in_use.err
    assert herdbook(*words, "nowhere").code == 2


@pytest.mark.slow
def test_gateway_accepts_the_tokens_of_the_service(
    server: SandboxThread, log: Path, herdbook: Herdbook, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens.toml"
    made = herdbook("token", "ann", "--role", "read", "--file", str(tokens))
    (secret,) = re.findall(r"hb_\S+", made.out)
    words = ("--listen", "127.0.0.1:0", "--tokens", str(tokens), "--json")
    with running("gateway", *words, lines=1) as (first,):
        address = re.findall(r'"address": *"([^"]+)"', first)[0]
        url = f"{address}/api/generate"
        key = {"Authorization": f"Bearer {secret}"}
        asked = httpx.post(url, json=ASKED, headers=key, trust_env=False)
        assert asked.status_code == 200
        for _ in range(12):
            wrong = {"Authorization": "Bearer wrong"}
            denied = httpx.post(url, json=ASKED, headers=wrong, trust_env=False)
            assert denied.status_code == 401
        # Unknown tokens shut out no other client at the same address.
        asked = httpx.post(url, json=ASKED, headers=key, trust_env=False)
        assert asked.status_code == 200

    found = uses(herdbook)  # of two requests, which are one use if made within a second
    assert {(use["actor"], use["client"]) for use in found} == {("api:ann", "ann")}


@pytest.mark.slow
def test_serve_runs_a_gateway_over_the_same_log(
    server: SandboxThread, log: Path
) -> None:
    words = ("--port", "0", "--gateway", "127.0.0.1:0")
    with running("serve", *words, lines=2) as (address, second):
        gateway = second.removeprefix("Gateway: ")
        answer = httpx.post(f"{gateway}/api/generate", json=ASKED, trust_env=False)
        assert answer.status_code == 200
        found: list[Any] = []
        while not found:
            page = httpx.get(f"{address}/v1/events?type=ModelUsed", trust_env=False)
            found = page.json()["events"]
    assert found[0]["data"]["client"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("listen", "message"),
    [
        ("11436", "'11436' is not HOST:PORT"),
        (":11436", "':11436' is not HOST:PORT"),
        ("localhost:x", "'localhost:x' is not HOST:PORT"),
        ("localhost:70000", "'localhost:70000' is not HOST:PORT"),
        ("0.0.0.0:0", "has no tokens"),
        ("192.0.2.1:0", "has no tokens"),
    ],
)
def test_gateway_refuses_an_invalid_address(
    server: SandboxThread, log: Path, herdbook: Herdbook, listen: str, message: str
) -> None:
    refused = herdbook("gateway", "--listen", listen)
    assert refused.code != 0
    assert message in refused.err


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_gateway_does_not_relay_to_itself(
    log: Path, herdbook: Herdbook, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:11436")
    refused = herdbook("gateway", "--listen", f"{host}:11436")
    assert "is the address that the gateway itself listens on" in refused.err


def test_gateway_names_a_port_that_is_in_use(
    server: SandboxThread, no_server: None, log: Path, herdbook: Herdbook
) -> None:
    listen = server.address.removeprefix("http://")
    refused = herdbook("gateway", "--listen", listen)
    host, _, port = listen.partition(":")
    assert f"port {port} on {host} is already in use" in refused.err


@pytest.mark.parametrize("installed", [True, False])
def test_gateway_works_without_uvloop(
    monkeypatch: pytest.MonkeyPatch, *, installed: bool
) -> None:
    if not installed:
        monkeypatch.setitem(sys.modules, "uvloop", None)
    loop = _fastest_loop()
    try:
        found = type(loop).__module__.partition(".")[0]
        assert found == ("uvloop" if installed else "asyncio")
    finally:
        loop.close()


@pytest.mark.parametrize("verb", ["gateway", "serve"])
def test_gateway_that_is_not_installed_is_named(
    no_server: None,
    log: Path,
    herdbook: Herdbook,
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
) -> None:
    monkeypatch.delitem(sys.modules, "herdbook.cli.programs.run_gateway", raising=False)
    monkeypatch.delattr("herdbook.cli.programs.run_gateway", raising=False)
    monkeypatch.setitem(sys.modules, "httptools", None)
    for name in [one for one in sys.modules if one.startswith("herdbook.gateway.")]:
        monkeypatch.delitem(sys.modules, name)
    given = ("--port", "0", "--gateway", "127.0.0.1:0") if verb == "serve" else ()
    refused = herdbook(verb, *given)
    assert "the gateway is not installed (httptools is missing)" in refused.err
