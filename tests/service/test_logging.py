"""What the service writes on stderr, as a process of its own."""

from __future__ import annotations

import base64
import http.client
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from support.cli_runner import SandboxThread
from support.service_program import run_service

from herdbook.core.logging import Logger
from herdbook.service.logging import configure, without_secrets

SECRET = f"hb_{'s' * 43}"
FOREIGN = f"hb_{'f' * 43}"
PROGRAM = Path(__file__).parents[1] / "support" / "web" / "http_fixture.py"


class Lines:
    """What a process says, and how to ask it."""

    def __init__(self, address: str) -> None:
        self.port = int(address.rpartition(":")[2])
        self.output = ""
        self.answers: list[str] = []

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.splitlines()]

    def ask(self, method: str, target: str, **given: Any) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, target, **given)
            answer = connection.getresponse()
            said = answer.read().decode("latin-1")
            self.answers.append(f"{answer.getheaders()} {said}")
            return answer.status
        finally:
            connection.close()

    def send(self, data: bytes) -> None:
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as sent:
            sent.sendall(data)
            sent.shutdown(socket.SHUT_WR)
            while piece := sent.recv(65536):
                self.answers.append(piece.decode("latin-1"))


@contextmanager
def running(**settings: Any) -> Iterator[Lines]:
    """Run the guarded application until the block ends, and keep its stderr."""
    environment = {**os.environ, "HERDBOOK_TOKENS": f"olga:operate:{SECRET}"}
    with subprocess.Popen(
        [sys.executable, str(PROGRAM), json.dumps(settings)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            said = Lines(process.stdout.readline().strip())
            yield said
            _, said.output = process.communicate("", timeout=20)
        finally:
            process.kill()


def test_request_is_logged_in_one_line_without_query_and_body() -> None:
    bearer = {"Authorization": f"Bearer {SECRET}", "Cookie": "a=b", "X-A": "header"}
    with running() as said:
        assert said.ask("GET", "/v1/who?q=query", headers=bearer) == 200
        assert said.ask("POST", "/v1/body", body=b"the body", headers=bearer) == 200
        assert said.ask("GET", f"/v1/{'x' * 500}%1b%0a") == 401
        assert said.ask("GET", "/healthz") == 200

    requests = [line for line in said.lines if line["event"] == "request"]
    who, body, long, health = requests
    assert who.keys() == {
        *("timestamp", "level", "logger", "event"),
        *("method", "path", "status", "duration_ms", "actor", "client"),
    }
    assert (who["logger"], who["level"]) == ("herdbook.http", "info")
    assert (who["method"], who["path"], who["status"]) == ("GET", "/v1/who", 200)
    assert (who["actor"], who["client"]) == ("api:olga", "127.0.0.1")
    assert 0 <= who["duration_ms"] < 10_000
    assert (body["method"], body["status"]) == ("POST", 200)
    assert len(long["path"]) == 200
    assert (health["actor"], long["actor"]) == (None, None)
    assert not [word for word in ("query", "header", "the body") if word in said.output]


def test_no_secret_is_in_any_line_or_answer() -> None:
    spread = {"Origin": FOREIGN, "Referer": f"http://x/{FOREIGN}", "Accept": FOREIGN}
    with running(failures=1000) as said:
        for secret in (SECRET, FOREIGN):
            basic = base64.b64encode(f"olga:{secret}".encode()).decode()
            for headers in (
                {"Authorization": f"Bearer {secret}"},
                {"Authorization": f"Bearer {secret} {secret}"},
                {"Authorization": f"Basic {basic}"},
                {"Authorization": secret},
                {"Cookie": f"herdbook_session={secret}; x={secret}"},
                {"X-Token": secret, "User-Agent": secret, **spread},
                {"Host": secret},
                {"Content-Length": secret},
                {"Content-Type": secret, "Accept-Language": secret},
            ):
                said.ask("GET", "/v1/who", headers=headers)
                said.ask("POST", "/v1/body", headers=headers)
            said.ask("GET", f"/v1/who?token={secret}&{secret}={secret}")
            said.ask("GET", f"/static/{secret}")
            said.ask("GET", f"/healthz/{secret}")
            said.ask(secret.replace("_", "-"), "/v1/who")
            said.ask("POST", "/login", body=f"token={secret}&next=/{secret}")
            form = {"Content-Type": "application/x-www-form-urlencoded"}
            said.ask("POST", "/login", body=f"token={secret}", headers=form)
            said.ask("POST", "/login", body=f"token={secret}x", headers=form)
            said.send(f"{secret}\r\n\r\n".encode())
            said.send(f"GET /{secret}\r\nHost {secret}\r\n\r\n".encode())
            said.send(f"GET / HTTP/1.1\r\n{secret}: {secret}\r\n\r\n".encode())
        bearer = {"Authorization": f"Bearer {SECRET}"}
        said.ask("GET", "/v1/environment", headers=bearer)
        said.ask("GET", "/v1/broken", headers=bearer)

    assert len(said.lines) >= 60
    broken = [line for line in said.lines if line["event"] == "unexpected_error"]
    assert "RuntimeError: unexpected" in broken[0]["exception"]
    for secret in (SECRET, FOREIGN):
        assert secret not in said.output
        basic = base64.b64encode(f"olga:{secret}".encode()).decode()
        assert basic not in said.output
    result = [answer for answer in said.answers if SECRET in answer]
    assert result == []
    environment = next(answer for answer in said.answers if "PATH" in answer)
    assert "HERDBOOK_TOKENS" not in environment


@pytest.fixture
def _kept() -> Iterator[None]:
    """Put the configuration back as it was."""
    before, handlers = structlog.get_config(), logging.root.handlers[:]
    level = logging.root.level
    yield
    structlog.configure(**before)
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.mark.usefixtures("_kept")
def test_plain_log_lines_are_readable(capsys: pytest.CaptureFixture[str]) -> None:
    configure("plain")

    Logger("herdbook.here").info("pulled", model="a\x1b[31m", token=SECRET, tokens=7)
    Logger("herdbook.here").debug("not_told")
    logging.getLogger("uvicorn.error").info("not shown")
    logging.getLogger("uvicorn.error").warning("a %s", "warning")
    logging.getLogger("litestar").error("broken", exc_info=ValueError(f"with {SECRET}"))

    first, second, *trace = capsys.readouterr().err.splitlines()
    assert first.split(" ", 1)[1] == (
        r"info herdbook.here pulled model=a\x1b[31m token=[removed] tokens=7"
    )
    assert second.endswith(" warning uvicorn.error a warning")
    assert trace[0].endswith(" error litestar broken")
    assert trace[-1] == "ValueError: with hb_[removed]"


@pytest.mark.usefixtures("_kept")
def test_verbose_logs_debug_messages(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json", verbose=True)

    Logger("herdbook.here").debug("shown", where="\udcff", path=Path("/x"))
    logging.getLogger("a").warning("%d", "no figure")
    Logger("").info("nameless")

    result = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (result[0]["event"], result[0]["path"]) == ("shown", "/x")
    assert result[1]["event"] == "%d"
    assert "logger" not in result[2]


def test_secrets_are_removed_everywhere() -> None:
    result = without_secrets(
        None,
        "info",
        {
            "event": f"asked with {SECRET}",
            "Set-Cookie": "a",
            "headers": {"authorization": "b", "x": [f"Bearer {'c' * 9}", (SECRET,)]},
            "client_secret": b"d",
            "password": ["e"],
            "session": "herdbook_session=f.g; Path=/",
            "tokens_per_second": 3.5,
            "cookie": None,
            SECRET: {SECRET: 1},
        },
    )

    assert result == {
        "event": "asked with hb_[removed]",
        "Set-Cookie": "[removed]",
        "headers": {
            "authorization": "[removed]",
            "x": ["Bearer [removed]", ["hb_[removed]"]],
        },
        "client_secret": "[removed]",
        "password": "[removed]",
        "session": "herdbook_session=[removed]; Path=/",
        "tokens_per_second": 3.5,
        "cookie": None,
        "hb_[removed]": {"hb_[removed]": 1},
    }


def test_service_continues_if_its_log_output_is_not_read(
    tmp_path: Path, ollama: SandboxThread
) -> None:
    (tmp_path / "herd.db.stderr").symlink_to("/dev/full")
    with run_service(tmp_path / "herd.db", ollama.address) as herdbook:
        loaded = herdbook.operate("load", "gemma3:4b")
        ollama.apply(server="stopped")
        refused = herdbook.operate("refresh")

        assert loaded["state"] == "succeeded"
        assert refused["error"]["code"] == "node_unreachable"
        assert herdbook.http.get("/v1/models/nobody").status_code == 404
        assert herdbook.stop() == 0
