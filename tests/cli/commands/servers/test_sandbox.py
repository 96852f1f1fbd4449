from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support.cli_runner import Herdbook

from herdbook.cli import run


def started(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "herdbook.cli", "sandbox", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_sandbox_prints_only_its_address_and_stops_on_a_signal(
    herdbook: Herdbook, number: signal.Signals
) -> None:
    with started("--models", "herd", "--profile", "older") as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        listed = herdbook("ls", "--ollama", address)
        process.send_signal(number)
        out, err = process.communicate(timeout=20)

    assert "Ollama 0.9.6" in listed.out
    assert (process.returncode, out, err) == (0, "", "")


def test_sandbox_in_json_shows_its_address() -> None:
    with started("--json") as process:
        assert process.stdout is not None
        result = json.loads(process.stdout.readline())
        process.terminate()
        process.communicate(timeout=20)

    assert result["address"].startswith("http://127.0.0.1:")


def test_sandbox_reports_a_port_in_use(herdbook: Herdbook) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])

        answer = herdbook("sandbox", "--port", port)

    assert answer.code == 2
    assert f"port {port} on 127.0.0.1 is already in use" in answer.err


def test_sandbox_names_the_missing_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [n for n in sys.modules if n.startswith("herdbook.sandbox")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "herdbook.cli.programs.run_sandbox", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)

    assert run(["sandbox"]) == 1
    assert "Install it: pip install 'herdbook[sandbox]'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_demo_completes_without_a_terminal(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "herdbook.cli", "demo"],
        env={**os.environ, "TMPDIR": str(tmp_path), "OLLAMA_HOST": "127.0.0.1:9"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    result = done.stdout
    assert "The demo uses a sandbox (a simulated Ollama server)" in result
    assert "recorded after a crash" in result
    story = result[
        result.index("Its complete history:") : result.index("at the time of the crash")
    ]
    sentences = ["pull started", "pull at ", "pull interrupted at ", "pulled in "]
    assert all(sentence in story for sentence in sentences)
    assert story.count("pull started") == 2
    assert "0 findings" in result


def test_unusable_folder_is_named(herdbook: Herdbook, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    answer = herdbook("sandbox", "--state", str(tmp_path / "file" / "state"))

    assert answer.code == 1
    assert f"{tmp_path / 'file'}" in answer.err
    assert "cannot be used" in answer.err
