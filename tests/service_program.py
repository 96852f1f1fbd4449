"""The service as a program of its own, for as long as a block runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import httpx

#: In seconds; a stop must take less, and so says the issue that asks for it.
LONGEST_STOP = 5.0


class Program:
    """One run of ``herdbook serve``.

    Attributes:
        process: The process.
        address: Where it listens.
        http: A client of it.
        log: Its log's file.
        errors: The file that its standard error goes to.
    """

    def __init__(
        self, process: subprocess.Popen[str], address: str, log: Path, errors: Path
    ) -> None:
        self.process = process
        self.address = address
        self.log = log
        self.errors = errors
        self.http = httpx.Client(base_url=address, timeout=20, trust_env=False)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.address.rpartition(":")[2])

    def get(self, path: str, **given: Any) -> Any:
        """Ask for something that is there, and return it as it is read."""
        answer = self.http.get(path, **given)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def operate(self, kind: str, model: str | None = None, **given: Any) -> Any:
        """Begin an operation, and see it ended."""
        body = {"kind": kind, "model": model, **given}
        answer = self.http.post("/v1/operations", json=body)
        assert answer.status_code == 202, answer.text
        return self.ended(answer.headers["location"])

    def ended(self, path: str, within_s: float = 30.0) -> Any:
        """Return an operation that has ended."""
        deadline = monotonic() + within_s
        while (told := self.get(path))["state"] == "running":
            assert monotonic() < deadline, told
        return told

    def types(self, model: str) -> list[str]:
        """Return what the log says of a model, by the names of the facts."""
        history = self.get(f"/v1/models/{model}/history?limit=1000")
        return [entry["type"] for entry in history]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop it, in time, and return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(LONGEST_STOP)

    def kill(self) -> None:
        """End it without warning."""
        self.process.kill()
        self.process.wait(LONGEST_STOP)


@contextmanager
def service(
    log: Path,
    ollama: str,
    *options: str,
    port: int = 0,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Program]:
    """Run the service, and tell its address."""
    errors = log.with_name(f"{log.name}.stderr")
    command = [sys.executable, "-m", "herdbook.cli", "serve", "--json"]
    given = [*command, "--port", str(port), "--db", str(log), "--ollama", ollama]
    with (
        errors.open("a") as stderr,
        subprocess.Popen(
            [*given, *options],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**os.environ, **(environment or {})},
        ) as process,
    ):
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, errors.read_text()
        program = Program(process, json.loads(line)["address"], log, errors)
        try:
            with program.http:
                yield program
            if process.poll() is None:
                program.stop()
        finally:
            process.kill()
