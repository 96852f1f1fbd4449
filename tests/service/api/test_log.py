"""The API about the log: pages, times, differences, roles."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime

import pytest
from support.service_program import RunningService

HERE = "gemma3:4b"


def used(herdbook: RunningService, times: int) -> None:
    """Record so many uses."""
    for number in range(times):
        body = {"purpose": f"use {number}"}
        assert herdbook.http.post(f"/v1/models/{HERE}/uses", json=body).is_success


@pytest.mark.parametrize("newest_first", [False, True])
def test_all_pages_together_are_the_log(
    herdbook: RunningService, newest_first: bool
) -> None:
    used(herdbook, 20)
    head = herdbook.get("/v1/log/head")["position"]

    found: list[int] = []
    word = "before" if newest_first else "after"
    path = f"/v1/events?limit=7&newest_first={str(newest_first).lower()}"
    page = herdbook.get(path)
    while True:
        found += [event["position"] for event in page["events"]]
        if page["next"] is None:
            break
        page = herdbook.get(f"{path}&{word}={page['next']}")

    # A look at the server may have recorded something meanwhile.
    expected = list(range(1, max(found) + 1))
    assert found == (expected[::-1] if newest_first else expected)
    assert page["head"] >= max(found) >= head


def test_event_equals_the_one_in_the_file(herdbook: RunningService) -> None:
    used(herdbook, 1)
    result = herdbook.get("/v1/events?newest_first=true&limit=1")["events"][0]

    assert herdbook.get(f"/v1/events/{result['position']}") == result
    with sqlite3.connect(f"file:{herdbook.log}?mode=ro", uri=True) as file:
        columns = ("event_id", "hash", "type", "actor", "occurred_at", "correlation_id")
        row = file.execute(
            f"SELECT {', '.join(columns)} FROM events WHERE position = ?",
            (result["position"],),
        ).fetchone()
    file.close()
    assert row == tuple(result[column] for column in columns)
    assert result["data"] == {"purpose": "use 0"}
    assert result["model"] == HERE


def test_events_are_filtered(herdbook: RunningService) -> None:
    used(herdbook, 3)
    begun = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    used(herdbook, 2)

    def count(query: str) -> int:
        return len(herdbook.get(f"/v1/events?limit=1000&{query}")["events"])

    assert count("type=ModelUsed") == 5
    assert count("type=ModelUsed&type=NodeReached") == 6
    assert count(f"type=ModelUsed&since={begun}") == 2
    assert count(f"type=ModelUsed&until={begun}") == 3
    assert count("type=ModelUsed&since=1h&until=now") == 5
    assert count("since=%231&until=2") == 2
    assert count("until=2100-01-01T00:00:00Z&type=ModelUsed") == 5
    assert count("actor=api:") == 5
    assert count("cause=command") == 5
    assert count("stream_prefix=node/") == 1
    assert count("correlation_id=nope") == 0


def test_past_and_current_status(herdbook: RunningService) -> None:
    then = herdbook.get("/v1/log/head")["position"]
    herdbook.operate("load", HERE)

    before = herdbook.get(f"/v1/status?as_of={then}")
    now = herdbook.get("/v1/status")
    states = [
        {model["name"]: model["state"] for model in result["models"]}[HERE]
        for result in (before, now)
    ]
    assert states == ["available", "loaded"]
    assert (before["position"], before["asked"]) == (then, None)
    assert set(now["recommended"]) == {
        *("general", "coding", "fast", "tool_use", "vision", "embedding", "thinking")
    }
    assert now["node"]["reached"] is True


def test_difference_of_two_times(herdbook: RunningService) -> None:
    then = herdbook.get("/v1/log/head")["position"]
    herdbook.operate("load", HERE)

    result = herdbook.get(f"/v1/diff?from={then}")
    backwards = herdbook.get(f"/v1/diff?from=now&to=%23{then}")

    changes = {one["fact"]: one for one in result["models"][0]["changes"]}
    assert result["models"][0]["name"] == HERE
    assert (changes["state"]["was"], changes["state"]["now"]) == ("available", "loaded")
    assert backwards["models"][0]["changes"][0]["now"] == "available"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v1/status?as_of=nonsense", "invalid_time"),
        ("/v1/status?as_of=2100-01-01T00:00:00Z", "invalid_time"),
        ("/v1/status?as_of=99999", "invalid"),
        ("/v1/diff", "bad_request"),
        ("/v1/events?limit=0", "bad_request"),
        ("/v1/events?limit=1001", "bad_request"),
        ("/v1/events?after=-1", "bad_request"),
        ("/v1/events?after=9007199254740993", "bad_request"),
        ("/v1/events?cause=whim", "bad_request"),
        ("/v1/events?since=soon", "invalid_time"),
        ("/v1/events?stream_prefix=%ED%A0%80", None),
    ],
)
def test_invalid_queries_are_refused(
    herdbook: RunningService, path: str, code: str | None
) -> None:
    answer = herdbook.http.get(path)

    if code is None:  # no such stream is an answer too
        assert answer.status_code in (200, 400)
    else:
        assert (answer.status_code, answer.json()["code"]) == (400, code)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/v1/events?limt=3", "Did you mean 'limit'? Parameters of this path: actor, "),
        ("/v1/models?asof=%231", "Did you mean 'as_of'?"),
        ("/v1/usage?by=model&sinc=1h", "Did you mean 'since'?"),
        ("/v1/log/head?zzz=1", "This path has no parameters"),
        ("/v1/events/stream?from=1", "Parameters of this path: "),
    ],
)
def test_unknown_parameter_is_refused(
    herdbook: RunningService, path: str, words: str
) -> None:
    answer = herdbook.http.get(path)

    assert answer.status_code == 400
    assert answer.json()["code"] == "bad_request"
    assert words in answer.json()["remedy"]


def test_all_roles_are_listed(herdbook: RunningService) -> None:
    coding = herdbook.get("/v1/roles/coding")
    every = {role["role"]: role for role in herdbook.get("/v1/roles")}

    assert every["coding"] == coding
    assert coding["chosen"][0]["reasons"]
    assert all(one["reasons"] for one in coding["passed_over"])
    assert herdbook.get("/v1/roles/Coding") == coding
    suggested = herdbook.get("/v1/roles/coding/suggestions?memory_bytes=10000000000")
    assert suggested
    assert herdbook.http.get("/v1/roles/juggling").status_code == 404


def test_head_has_the_position_and_hash_for_verify(
    herdbook: RunningService,
) -> None:
    head = herdbook.get("/v1/log/head")

    assert len(head["hash"]) == 64
    last = herdbook.get(f"/v1/events/{head['position']}")
    assert last["hash"] == head["hash"]
