"""Few file descriptors: the error names the real reason; nothing is recorded."""

from __future__ import annotations

import errno
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from support.cli_runner import SandboxThread

from herdbook.core import HerdbookError, NodeUnreachableError, ResourceExhaustedError
from herdbook.core.ollama.client import ClientLimits
from herdbook.core.ollama.connections import translate


@pytest.mark.parametrize("files", range(7, 16))
def test_true_reason_is_reported(
    tmp_path: Path, server: SandboxThread, files: int
) -> None:
    log = tmp_path / "herd.db"
    command = [sys.executable, "-m", "herdbook.cli", "--db", str(log)]
    ls = [*command, "--ollama", server.address, "ls"]

    cramped = subprocess.run(
        ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", *ls],
        capture_output=True,
        text=True,
        check=False,
    )

    if cramped.returncode:
        assert "open files" in cramped.stderr
        assert "ulimit -n" in cramped.stderr
        assert "permission" not in cramped.stderr
        lines = cramped.stderr.splitlines()
        errors = [one for one in lines if not one.startswith("herdbook: warning:")]
        assert len(errors) == 1
    if log.exists():
        history = subprocess.run(
            [*command, "log"], capture_output=True, text=True, check=False
        )
        assert "NodeLost" not in history.stdout
        assert "unreachable" not in history.stdout


def chain(error: Exception) -> Exception:
    """Return what httpx raises when a connection failed with an error."""
    made = httpx.ConnectError("All connection attempts failed")
    made.__cause__ = error
    return made


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_own_file_descriptor_limit_is_not_an_error_of_the_server(number: int) -> None:
    one = OSError(number, "Too many open files")
    for error in (chain(one), chain(ExceptionGroup("several", [OSError(), one]))):
        result = translate(error, "http://x", ClientLimits())
        assert isinstance(result, ResourceExhaustedError)


def test_failures_of_the_server_stay_those_of_the_server() -> None:
    for error in (socket.gaierror(-2, "unknown"), ConnectionRefusedError(111, "no")):
        result: HerdbookError = translate(chain(error), "http://x", ClientLimits())
        assert isinstance(result, NodeUnreachableError)
