"""Every page and every GET of the API answer on a log that was left odd."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cli_runner import SandboxThread
from support.odd_log import MODEL, ODD, odd_log
from support.service_program import run_in_thread

PAGES = (
    *("/", "/?gone=true", "/roles", "/log", "/node", "/compare?from=%231", "/api"),
    *(f"/models/{MODEL}", f"/models/{MODEL}/configuration", "/pull?model=mistral"),
    *(f"/models/{MODEL}/{word}" for word in ("load", "unload", "delete", "pull")),
)
PARAMETERS = {"{name}": MODEL, "{role}": "general", "{operation_id}": "none"}
ENDLESS = "/v1/events/stream"


@pytest.mark.parametrize("what", ODD)
def test_every_page_and_endpoint_answers_on_an_odd_log(
    what: str, tmp_path: Path, ollama: SandboxThread
) -> None:
    log = tmp_path / "herd.db"
    position = odd_log(log, what)
    with run_in_thread(log, ollama.address) as service:
        document = service.get("/v1/openapi.json")
        paths = [path for path, ways in document["paths"].items() if "get" in ways]
        assert ENDLESS in paths
        for path in (*PAGES, f"/log/{position}", *paths):
            if path == ENDLESS:
                continue
            filled = path.replace("{position}", str(position))
            for name, value in PARAMETERS.items():
                filled = filled.replace(name, value)
            answer = service.http.get(filled)
            assert answer.status_code < 500, (filled, answer.text[-2000:])
            if "{operation_id}" not in path:
                assert answer.status_code in {200, 303, 400, 404, 405}, filled
        for query in (f"?as_of={position}", "?as_of=2026-01-02T00:00:00Z"):
            for path in (
                "/v1/status",
                "/v1/models",
                "/v1/roles",
                f"/v1/models/{MODEL}",
            ):
                answer = service.http.get(path + query)
                assert answer.status_code == 200, (path + query, answer.text)
        with service.http.stream("GET", f"{ENDLESS}?after=0") as stream:
            assert stream.status_code == 200
            lines = stream.iter_lines()
            seen = {next(lines) for _ in range(30)}
            assert any(line == f"id: {position}" for line in seen), seen
