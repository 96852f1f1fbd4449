"""A service on a log that another process archives, and on one without archives."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from support.archives import LENGTH, archive_all, fill
from support.cli_runner import SandboxThread
from support.service_program import ServiceProcess, run_in_thread, run_service

from herdbook.events.archive_file import BLOCK

PAGES = (
    *("/", "/node", "/log", "/log/2049", "/roles", "/usage", "/models/m1:latest"),
    *("/?as_of=%232100", "/compare?from=%232100", "/figures?of=memory"),
)


def events_of(service: ServiceProcess, **given: object) -> list[int]:
    found = service.get("/v1/events", params={"limit": 1000, **given})
    return [event["position"] for event in found["events"]]


def test_service_keeps_working_while_its_log_is_archived(
    tmp_path: Path, ollama: SandboxThread
) -> None:
    log = tmp_path / "herd.db"
    asyncio.run(fill(log))
    with run_service(log, ollama.address) as service:
        first = events_of(service, after=0)
        model = service.get("/v1/models")[0]["name"]
        before = service.get("/v1/models/m1:latest/history")
        with service.http.stream("GET", "/v1/events/stream") as stream:
            lines = stream.iter_lines()
            command = [str(Path(sys.executable).with_name("herdbook"))]
            words = ["--db", str(log), "archive", "--before", f"#{LENGTH}"]
            made = subprocess.run(
                [*command, *words], capture_output=True, text=True, check=False
            )
            assert made.returncode == 0, made.stderr
            service.operate("load", model)
            seen: list[str] = []
            for line in lines:
                if line.startswith("data:") and '"type":' in line:
                    seen.append(json.loads(line[5:])["type"])
                if "ModelLoaded" in seen:
                    break

        assert "LogArchived" in seen
        assert events_of(service, after=0) == first
        assert service.get("/v1/models/m1:latest/history") == before
        assert service.get("/readyz")["status"] == "ok"
        assert log.with_name(f"herd-archive-1-{2 * BLOCK}.jsonl.gz").exists()


def test_pages_without_the_archive_say_what_they_cannot_show(
    tmp_path: Path, ollama: SandboxThread
) -> None:
    log = tmp_path / "herd.db"
    asyncio.run(fill(log))
    made = asyncio.run(archive_all(log))
    made.file.unlink()
    with run_in_thread(log, ollama.address) as service:
        for path in PAGES:
            answer = service.http.get(path, headers={"accept": "text/html"})
            if path.startswith("/figures"):
                assert answer.status_code == 503
            else:
                assert answer.status_code == 200, path
            if path in {"/node", "/models/m1:latest", "/figures?of=memory"}:
                assert f"{made.file.name} with the events #1 to #2048" in answer.text
        done = service.http.get("/?done=1", headers={"accept": "text/html"})
        assert done.status_code == 200
        refused = service.http.get("/v1/events?after=0")
        assert refused.status_code == 503
        assert refused.json()["code"] == "archive_missing"
        assert "HERDBOOK_ARCHIVES" in refused.json()["remedy"]
        newest = service.get("/v1/events?newest_first=true&limit=1000")
        assert newest["events"][-1]["position"] == 2 * BLOCK + 1
        gone = service.http.get("/v1/models/m1:latest/history")
        assert gone.json()["code"] == "archive_missing"
