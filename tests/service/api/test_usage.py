"""The API about usage, as JSON and CSV."""

from __future__ import annotations

import asyncio
import csv
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.service_program import RunningService, run_in_thread
from support.uses import failed, record, recorded, used

from herdbook.events.facts import ModelDiscovered

DISCOVERED = ModelDiscovered(digest="a" * 64, size_bytes=1)
NOW = datetime.now(UTC)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[RunningService]:
    """Return a service with some uses, of now and of three days ago."""
    before = NOW - timedelta(days=3)
    events = [
        recorded(1, DISCOVERED, at=before),
        recorded(2, DISCOVERED, model="b:1", at=before),
        recorded(3, used(client="ann", role="coding"), at=before),
        recorded(4, used(client="ben", count=4), model="b:1", at=NOW),
        recorded(5, failed(client="ben"), model="b:1", at=NOW),
    ]
    log = tmp_path / "herd.db"
    asyncio.run(record(log, events))
    with run_in_thread(log, "127.0.0.1:9") as running:
        yield running


def groups(service: RunningService, query: str) -> list[tuple[str | None, int]]:
    rows = service.get(f"/v1/usage?{query}")["rows"]
    return [(next(iter(row["group"].values())), row["requests"]) for row in rows]


def test_usage_is_grouped_by_model_by_default(service: RunningService) -> None:
    answer = service.get("/v1/usage")

    assert answer["by"] == ["model"]
    assert [row["group"] for row in answer["rows"]] == [
        {"model": "b:1"},
        {"model": "llama3.2:3b"},
    ]
    assert answer["total"]["requests"] == 6
    assert answer["total"]["failed"] == 1
    assert answer["total"]["output_tokens"] == 200


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("by=client", [("ben", 5), ("ann", 1)]),
        ("by=role", [(None, 5), ("coding", 1)]),
        ("by=client&since=2+days+ago", [("ben", 5)]),
        ("by=client&until=2+days+ago", [("ann", 1)]),
        ("by=client&as_of=%234", [("ben", 4), ("ann", 1)]),
        ("by=client&as_of=%234&until=2+days+ago", [("ann", 1)]),
        ("by=client&as_of=2+days+ago&until=%234", [("ann", 1)]),
        ("by=client&since=%233&until=%234", [("ben", 4)]),
    ],
)
def test_usage_of_a_group_and_a_part_of_the_log(
    service: RunningService, query: str, expected: list[tuple[str, int]]
) -> None:
    assert groups(service, query) == expected


@pytest.mark.parametrize(
    ("query", "accept"),
    [("&format=csv", "*/*"), ("", "text/csv"), ("&format=csv", "application/json")],
)
def test_usage_is_available_as_csv(
    service: RunningService, query: str, accept: str
) -> None:
    answer = service.http.get(
        f"/v1/usage?by=client&by=model{query}", headers={"accept": accept}
    )

    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.headers["content-disposition"] == 'attachment; filename="usage.csv"'
    rows = list(csv.DictReader(answer.text.splitlines()))
    assert [(row["client"], row["model"], row["requests"]) for row in rows] == [
        ("ben", "b:1", "5"),
        ("ann", "llama3.2:3b", "1"),
    ]


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("by=modell", "modell"),
        ("since=soon", "'soon' cannot be read as a time"),
        ("as_of=%2399999", "does not exist yet"),
        ("format=xml", "xml"),
    ],
)
def test_bad_query_is_refused(service: RunningService, query: str, text: str) -> None:
    answer = service.http.get(f"/v1/usage?{query}")

    assert answer.status_code == 400
    assert text in answer.json()["detail"]


def test_next_answer_includes_a_new_use(service: RunningService) -> None:
    before = service.get("/v1/usage")["total"]["requests"]

    used_now = service.http.post("/v1/models/b:1/uses", json={})

    assert used_now.status_code == 201
    assert service.get("/v1/usage")["total"]["requests"] == before + 1
