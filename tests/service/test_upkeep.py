"""Backups and anchors of a running service, as a process of its own."""

from __future__ import annotations

import re
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
from support.cli_runner import SandboxThread
from support.service_program import ServiceProcess, run_service

from herdbook.cli import run
from herdbook.core.proof.anchor_file import read_anchor_file


def ready(service: ServiceProcess) -> dict[str, Any]:
    """Return the readiness once each work was done or failed."""
    deadline = monotonic() + 30
    while True:
        answer = service.http.get("/readyz")
        assert answer.status_code == 200, answer.text
        shown: dict[str, Any] = answer.json()
        failing = {task["task"] for task in shown["failing"]}
        if all(
            work["last_position"] or work["task"] in failing for work in shown["upkeep"]
        ):
            return shown
        assert monotonic() < deadline, shown
        sleep(0.1)


def test_service_makes_backups_and_anchors(
    tmp_path: Path, ollama: SandboxThread
) -> None:
    log, backups, file = tmp_path / "herd.db", tmp_path / "backups", tmp_path / "a.txt"
    backups.mkdir()
    options = [
        *("--backup-every", "1d", "--backup-dir", str(backups), "--backup-keep", "2"),
        *("--anchor-every", "1h", "--anchor-file", str(file)),
        *("--anchor-url", "http://127.0.0.1:9/anchors"),
    ]
    with run_service(log, ollama.address, *options) as service:
        shown = ready(service)
        metrics = service.http.get("/metrics").text
        page = service.http.get("/node").text

    # A destination that fails does not make the service unready.
    assert shown["status"] == "ok"
    assert [task["task"] for task in shown["failing"]] == ["anchors_to_url"]
    by_task = {work["task"]: work for work in shown["upkeep"]}
    assert by_task.keys() == {"backups", "anchors_to_file", "anchors_to_url"}
    assert by_task["backups"]["every_s"] == 86_400
    assert by_task["backups"]["next_at"] > by_task["backups"]["last_at"]
    assert 'herdbook_task_up{task="backups"} 1.0' in metrics
    assert 'herdbook_task_up{task="anchors_to_url"} 0.0' in metrics
    assert 'herdbook_upkeep_last_timestamp_seconds{task="backups"}' in metrics
    assert "Anchors to url" in page
    assert re.search(
        r"Backups.{1,400}last [^<]+ at #\d+, next tomorrow", page, re.DOTALL
    )
    (backup,) = backups.iterdir()
    assert run(["verify", "--db", str(backup)]) == 0
    assert run(["verify", "--db", str(log), "--anchors", str(file)]) == 0
    assert read_anchor_file(file)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--backup-every", "1d"], "--backup-dir"),
        (["--backup-dir", "."], "--backup-every"),
        (["--anchor-every", "1h"], "--anchor-file"),
        (["--anchor-url", "http://a/"], "--anchor-every"),
        (["--backup-every", "often", "--backup-dir", "."], "as an interval"),
        (["--backup-every", "5s", "--backup-dir", "."], "is too short"),
        (["--backup-every", "1d", "--backup-dir", "/none"], "is not a directory"),
        (["--anchor-every", "1h", "--anchor-url", "a"], "is not a URL"),
    ],
)
def test_invalid_options_are_refused(
    options: list[str],
    problem: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = run(["serve", "--port", "0", "--db", str(tmp_path / "herd.db"), *options])

    assert code == 2
    assert problem in capsys.readouterr().err
