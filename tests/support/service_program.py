"""The service for as long as a block runs: as a process, or in a thread."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
from litestar.routes import HTTPRoute

from herdbook.service.app import composed, routed
from herdbook.service.context import Service
from herdbook.service.server import serve
from herdbook.service.settings import ServiceSettings

#: Maximum seconds for a stop.
LONGEST_STOP = 5.0


class RunningService:
    """A running service, with a client.

    Attributes:
        address: Its address.
        http: A client of it.
        log: Its log's file.
    """

    def __init__(self, address: str, log: Path) -> None:
        self.address = address
        self.log = log
        self.http = httpx.Client(base_url=address, timeout=20, trust_env=False)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.address.rpartition(":")[2])

    def get(self, path: str, **given: Any) -> Any:
        """Get a path that exists; return its JSON."""
        answer = self.http.get(path, **given)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def operate(self, kind: str, model: str | None = None, **given: Any) -> Any:
        """Run an operation to its end."""
        body = {"kind": kind, "model": model, **given}
        answer = self.http.post("/v1/operations", json=body)
        assert answer.status_code == 202, answer.text
        return self.wait_for(answer.headers["location"])

    def wait_for(self, path: str, within_s: float = 30.0) -> Any:
        """Wait for the end of an operation."""
        deadline = monotonic() + within_s
        while (operation := self.get(path))["state"] == "running":
            assert monotonic() < deadline, operation
        return operation

    def types(self, model: str) -> list[str]:
        """Return the types of a model's events."""
        history = self.get(f"/v1/models/{model}/history?limit=1000")
        return [entry["type"] for entry in history]


class ServiceProcess(RunningService):
    """One run of ``herdbook serve``, a process of its own.

    Attributes:
        process: The process.
        errors: The file that its standard error goes to.
    """

    def __init__(
        self, process: subprocess.Popen[str], address: str, log: Path, errors: Path
    ) -> None:
        super().__init__(address, log)
        self.process = process
        self.errors = errors

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop it within ``LONGEST_STOP``; return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(LONGEST_STOP)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(LONGEST_STOP)


class ServiceThread(RunningService):
    """A service in a thread of this process, which starts faster.

    Attributes:
        settings: Its settings.
        loop: Its event loop.
        service: State that its handlers share.
    """

    service: Service

    def __init__(self, log: Path, ollama: str, settings: ServiceSettings) -> None:
        self.settings = settings
        self._ollama = ollama
        self.loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=[log])
        self._address = ""
        self._thread.start()
        assert self._ready.wait(20)
        assert self._address, "it did not start"
        super().__init__(self._address, log)

    def _run(self, log: Path) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
                runner.run(self._serve(log))
        finally:
            self._ready.set()

    async def _serve(self, log: Path) -> None:
        async with (
            composed(log, settings=self.settings, ollama=self._ollama) as made,
            serve(made[1], self.settings) as self._address,
        ):
            self.service = made[0]
            self._ready.set()
            await self._ended.wait()
            await made[0].stop()

    def routes(self) -> list[str]:
        """Return the paths that are answered to GET, such as ``/v1/models/{name}``."""
        return sorted(
            route.path_format
            for route in routed(self.service).routes
            if isinstance(route, HTTPRoute) and "GET" in route.methods
        )

    def close(self) -> None:
        """Stop serving and wait for the thread."""
        self.http.close()
        self.loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(20)
        assert not self._thread.is_alive()


@contextmanager
def run_in_thread(log: Path, ollama: str, **settings: Any) -> Iterator[ServiceThread]:
    """Run the service in a thread."""
    running = ServiceThread(log, ollama, ServiceSettings(**{"port": 0, **settings}))
    try:
        yield running
    finally:
        running.close()


@contextmanager
def starting(
    log: Path,
    ollama: str,
    *options: str,
    port: int = 0,
    environment: Mapping[str, str] | None = None,
    files: int | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """Start the service, without waiting for it; ``files`` limits its open files."""
    command = [sys.executable, "-m", "herdbook.cli", "serve", "--json"]
    if files is not None:
        command = ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", *command]
    given = [*command, "--port", str(port), "--db", str(log), "--ollama", ollama]
    with (
        _errors_of(log).open("a") as stderr,
        subprocess.Popen(
            [*given, *options],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**os.environ, **(environment or {})},
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def _errors_of(log: Path) -> Path:
    return log.with_name(f"{log.name}.stderr")


@contextmanager
def run_service(
    log: Path, ollama: str, *options: str, **given: Any
) -> Iterator[ServiceProcess]:
    """Run the service; the keyword arguments are those of ``starting``."""
    errors = _errors_of(log)
    with starting(log, ollama, *options, **given) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, errors.read_text()
        program = ServiceProcess(process, json.loads(line)["address"], log, errors)
        with program.http:
            yield program
        if process.poll() is None:
            program.stop()
