"""Operations over HTTP: start, follow, cancel, find again after a restart."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.cli_runner import SandboxThread
from support.service_program import RunningService, run_in_thread, run_service
from support.waiting import wait_until

FETCHED = "qwen3:0.6b"
SLOW = "llama3.1:8b"
HERE = "gemma3:4b"


def begin(
    herdbook: RunningService, kind: str, model: str | None, key: str | None = None
) -> httpx.Response:
    """Ask for an operation, and do not wait for it."""
    headers = {} if key is None else {"idempotency-key": key}
    body = {"kind": kind, "model": model}
    return herdbook.http.post("/v1/operations", json=body, headers=headers)


def began(herdbook: RunningService, model: str) -> bool:
    """Return whether the log has the start of a model's pull."""
    page = herdbook.get(f"/v1/events?stream_prefix=model/local/{model}&limit=1000")
    return "PullStarted" in [event["type"] for event in page["events"]]


def test_pull_is_accepted_immediately_and_ends_with_the_model_present(
    herdbook: RunningService,
) -> None:
    accepted = begin(herdbook, "pull", FETCHED)

    result = accepted.json()
    assert accepted.status_code == 202
    assert accepted.headers["location"] == f"/v1/operations/{result['id']}"
    assert (result["kind"], result["state"], result["actor"]) == (
        *("pull", "running"),
        "api:local",
    )
    ended = herdbook.wait_for(accepted.headers["location"])
    assert (ended["state"], ended["error"]) == ("succeeded", None)
    assert ended["progress"]["completed_bytes"] == ended["progress"]["total_bytes"]
    assert herdbook.get(f"/v1/models/{FETCHED}")["state"] == "available"


def test_all_events_of_an_operation_have_its_id(herdbook: RunningService) -> None:
    ended = herdbook.operate("pull", FETCHED)

    page = herdbook.get(f"/v1/events?correlation_id={ended['id']}")

    types = [event["type"] for event in page["events"]]
    assert types == ["PullStarted", "PullCompleted", "CapabilitiesDetected"]
    assert {event["actor"] for event in page["events"]} == {"api:local"}


def test_load_use_and_unload(herdbook: RunningService) -> None:
    loaded = herdbook.operate("load", HERE, options={"num_ctx": 2048})
    seen = herdbook.get(f"/v1/models/{HERE}")
    unloaded = herdbook.operate("unload", HERE)

    assert loaded["state"] == unloaded["state"] == "succeeded"
    assert (seen["state"], seen["context"]["in_effect"]) == ("loaded", 2048)
    assert unloaded["result"] == "unloaded"
    assert herdbook.get(f"/v1/models/{HERE}")["state"] == "available"


def test_refresh_records_changes_by_other_programs(
    herdbook: RunningService, ollama: SandboxThread
) -> None:
    httpx.request("DELETE", f"{ollama.address}/api/delete", json={"model": HERE})

    ended = herdbook.operate("refresh")

    assert (ended["state"], ended["model"]) == ("succeeded", None)
    assert herdbook.get(f"/v1/models/{HERE}")["state"] == "not_present"


def test_failure_has_a_code_and_a_remedy(herdbook: RunningService) -> None:
    ended = herdbook.operate("pull", "no-such-model:1b")

    assert ended["state"] == "failed"
    assert ended["error"]["code"] == "pull_refused"
    assert "registry does not have it" in ended["error"]["state"]
    assert herdbook.types("no-such-model:1b") == ["PullStarted", "PullFailed"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"kind": "load"}, 400, "bad_request"),
        ({"kind": "load", "model": "not-there:1b"}, 404, "model_not_found"),
        ({"kind": "update", "model": "not-there:1b"}, 404, "model_not_found"),
        ({"kind": "pull", "model": "a b"}, 400, "invalid_name"),
        ({"kind": "pull", "model": "a", "options": {"num_ctx": 1}}, 400, "bad_request"),
        ({"kind": "explode", "model": "a"}, 400, "bad_request"),
        ({"kind": "pull", "model": "a", "more": 1}, 400, "bad_request"),
        (
            {"kind": "load", "model": HERE, "options": {"num_ctx": "x"}},
            *(400, "invalid_configuration"),
        ),
    ],
)
def test_invalid_requests_are_refused_before_they_start(
    herdbook: RunningService, body: dict[str, Any], status: int, code: str
) -> None:
    before = herdbook.get("/v1/log/head")

    refused = herdbook.http.post("/v1/operations", json=body)

    assert (refused.status_code, refused.json()["code"]) == (status, code)
    assert refused.headers["content-type"] == "application/problem+json"
    assert herdbook.get("/v1/log/head") == before


def test_same_key_finds_the_same_operation(herdbook: RunningService) -> None:
    first = begin(herdbook, "pull", FETCHED, "one").json()
    herdbook.wait_for(f"/v1/operations/{first['id']}")

    again = begin(herdbook, "pull", FETCHED, "one")
    other = begin(herdbook, "pull", FETCHED, "two").json()
    misused = begin(herdbook, "load", FETCHED, "one")

    assert again.status_code == 202
    assert (again.json()["id"], again.json()["state"]) == (first["id"], "succeeded")
    assert other["id"] != first["id"]
    assert misused.status_code == 422
    assert misused.json()["code"] == "idempotency_key_reused"


def test_concurrent_requests_with_one_key_start_one_operation(
    herdbook: RunningService,
) -> None:
    answers: list[str] = []

    def ask() -> None:
        answers.append(begin(herdbook, "pull", FETCHED, "race").json()["id"])

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for asking in threads:
        asking.start()
    for asking in threads:
        asking.join()

    assert len(answers) == 8
    assert len(set(answers)) == 1
    herdbook.wait_for(f"/v1/operations/{answers[0]}")
    assert herdbook.types(FETCHED).count("PullStarted") == 1


def test_key_is_known_after_a_restart(tmp_path: Path, ollama: SandboxThread) -> None:
    log = tmp_path / "herd.db"
    with run_in_thread(log, ollama.address) as first:
        result = begin(first, "pull", FETCHED, "one").json()
        ended = first.wait_for(f"/v1/operations/{result['id']}")

    with run_in_thread(log, ollama.address) as second:
        again = begin(second, "pull", FETCHED, "one").json()
        misused = begin(second, "load", FETCHED, "one")

        assert again["id"] == ended["id"]
        assert (again["state"], again["kind"], again["model"]) == (
            *("succeeded", "pull"),
            FETCHED,
        )
        assert misused.status_code == 422
        assert second.types(FETCHED).count("PullStarted") == 1


def test_request_for_a_running_operation_joins_it(
    tmp_path: Path, slow_ollama: SandboxThread
) -> None:
    with run_in_thread(tmp_path / "herd.db", slow_ollama.address) as herdbook:
        first = begin(herdbook, "pull", SLOW).json()
        second = begin(herdbook, "pull", SLOW).json()
        busy = begin(herdbook, "load", HERE).json()
        conflict = herdbook.http.post(
            "/v1/operations",
            json={"kind": "load", "model": HERE, "options": {"num_ctx": 1024}},
        )

        assert first["id"] == second["id"]
        assert busy["state"] == "running"
        assert conflict.status_code in (202, 409)  # it may be loaded already
        herdbook.http.delete(f"/v1/operations/{first['id']}")


def test_cancellation_is_complete_when_it_is_answered(
    tmp_path: Path, slow_ollama: SandboxThread
) -> None:
    with run_in_thread(tmp_path / "herd.db", slow_ollama.address) as herdbook:
        path = begin(herdbook, "pull", SLOW).headers["location"]
        wait_until(lambda: began(herdbook, SLOW))

        cancelled = herdbook.http.delete(path)
        again = herdbook.http.delete(path)

        assert cancelled.status_code == again.status_code == 200
        assert cancelled.json()["state"] == again.json()["state"] == "cancelled"
        assert herdbook.types(SLOW) == ["PullStarted", "PullCancelled"]
        assert herdbook.get(path)["state"] == "cancelled"


def test_progress_is_reported_while_it_runs(
    tmp_path: Path, slow_ollama: SandboxThread
) -> None:
    with run_in_thread(tmp_path / "herd.db", slow_ollama.address) as herdbook:
        path = begin(herdbook, "pull", SLOW).headers["location"]
        wait_until(lambda: herdbook.get(path)["progress"] is not None)
        wait_until(lambda: bool(herdbook.get(path)["progress"]["rate_bytes_s"]))

        running = herdbook.get("/v1/operations?state=running")

        assert [one["model"] for one in running] == [SLOW]
        assert running[0]["progress"]["total_bytes"] > 4_000_000_000
        herdbook.http.delete(path)


def test_graceful_stop_interrupts_and_is_reported_by_the_next_run(
    tmp_path: Path, slow_ollama: SandboxThread
) -> None:
    log = tmp_path / "herd.db"
    with run_service(log, slow_ollama.address) as herdbook:
        result = begin(herdbook, "pull", SLOW, "one").json()
        wait_until(lambda: began(herdbook, SLOW))
        assert herdbook.stop() == 0

    with run_service(log, slow_ollama.address) as herdbook:
        again = herdbook.get(f"/v1/operations/{result['id']}")

        assert again["state"] == "interrupted"
        assert herdbook.types(SLOW) == ["PullStarted", "PullInterrupted"]


def test_next_run_records_work_interrupted_by_a_kill(
    tmp_path: Path, slow_ollama: SandboxThread
) -> None:
    log = tmp_path / "herd.db"
    with run_service(log, slow_ollama.address) as herdbook:
        result = begin(herdbook, "pull", SLOW, "one").json()
        wait_until(lambda: began(herdbook, SLOW))
        herdbook.kill()

    with run_service(log, slow_ollama.address) as herdbook:
        again = begin(herdbook, "pull", SLOW, "one").json()

        assert (again["id"], again["state"]) == (result["id"], "interrupted")
        assert herdbook.types(SLOW) == ["PullStarted", "PullInterrupted"]


def test_unknown_operation_is_not_found(herdbook: RunningService) -> None:
    for method in ("GET", "DELETE"):
        answer = herdbook.http.request(method, "/v1/operations/nope")

        assert answer.status_code == 404
        assert answer.json()["code"] == "unknown_operation"
