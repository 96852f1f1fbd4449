"""The verb usage."""

from __future__ import annotations

import asyncio
import csv
from datetime import timedelta
from pathlib import Path

import pytest
from support.cli_runner import Herdbook, SandboxThread
from support.uses import START, failed, record, recorded, used

from herdbook.events.facts import ModelDiscovered, ModelUsed, UsesNotRecorded
from herdbook.events.recorded import Cause

pytestmark = pytest.mark.usefixtures("no_server")


@pytest.fixture
def filled(log: Path) -> Path:
    """Return a log with some uses of two models by three clients, on two days."""
    discovered = ModelDiscovered(digest="a" * 64, size_bytes=1)
    later = START + timedelta(days=1)
    missing = UsesNotRecorded(count=3, since=later, until=later, reason="disk full")
    events = [
        recorded(1, discovered),
        recorded(2, discovered, model="smollm2:135m"),
        recorded(3, used(client="ann", count=2, duration_s=4.0, first_token_s=1.0)),
        recorded(4, used(client="ben", role="coding", prompt_tokens=1_500_000)),
        recorded(5, failed(client="ben")),
        recorded(6, used(client="ann"), model="smollm2:135m", at=later),
        recorded(7, missing, at=later),
        recorded(8, ModelUsed(), cause=Cause.OBSERVED, at=later),
    ]
    asyncio.run(record(log, events))
    return log


def test_usage_shows_models_with_the_most_requests_first(
    herdbook: Herdbook, filled: Path
) -> None:
    lines = herdbook("usage").out.splitlines()

    assert lines[0].split("   ")[0] == "MODEL"
    assert lines[1].split() == [
        *("llama3.2:3b", "4", "1", "1"),
        *("1.5", "million", "200", "2.0", "s", "2.0", "s", "496", "ms", "496", "ms"),
        "33",
    ]
    assert lines[2].startswith("smollm2:135m")
    assert lines[3] == (
        "5 requests · 1 failed · 1.5 million tokens · 1 use observed on the server "
        "· 3 requests not recorded"
    )


def test_usage_in_json_groups_by_several(herdbook: Herdbook, filled: Path) -> None:
    answer = herdbook("usage", "--by", "day", "--by", "client", "--json").json

    assert answer["by"] == ["day", "client"]
    assert [(row["group"], row["requests"]) for row in answer["rows"]] == [
        ({"day": "2026-03-01", "client": "ann"}, 2),
        ({"day": "2026-03-01", "client": "ben"}, 2),
        ({"day": "2026-03-02", "client": "ann"}, 1),
        ({"day": "2026-03-02", "client": None}, 0),
    ]
    assert answer["total"]["not_recorded"] == 3
    assert (answer["after"], answer["until"]) == (0, 8)


def test_usage_as_csv_has_a_row_for_each_group(
    herdbook: Herdbook, filled: Path
) -> None:
    answer = herdbook("usage", "--by", "client", "--csv")

    rows = list(csv.DictReader(answer.out.splitlines()))
    assert [(row["client"], row["requests"], row["failed"]) for row in rows] == [
        ("ann", "3", "0"),
        ("ben", "2", "1"),
        ("", "0", "0"),
    ]
    assert rows[1]["prompt_tokens"] == "1500000"
    assert rows[2]["duration_p95_s"] == ""


@pytest.mark.parametrize(
    ("options", "requests"),
    [
        (["--since", "2026-03-02T00:00Z"], 1),
        (["--until", "2026-03-02T00:00Z"], 4),
        (["--since", "#3", "--until", "#5"], 2),
        (["--as-of", "#4"], 3),
        (["--as-of", "#0"], 0),
    ],
)
def test_usage_of_a_part_of_the_log(
    herdbook: Herdbook, filled: Path, options: list[str], requests: int
) -> None:
    answer = herdbook("usage", "--json", *options).json

    assert answer["total"]["requests"] == requests


def test_usage_of_an_empty_log_says_so(herdbook: Herdbook) -> None:
    answer = herdbook("usage")

    assert (answer.code, answer.out) == (0, "0 requests\n")


def test_usage_counts_a_just_reported_use(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    herdbook("use", "llama3.2:3b")

    answer = herdbook("usage", "--by", "client", "--by", "outcome", "--json").json

    assert [row["group"] for row in answer["rows"]] == [
        {"client": "cli:ann", "outcome": "reported"}
    ]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--by", "modell"], "'modell' cannot be used to group usage"),
        (["--by", "modell"], "Did you mean 'model'"),
        (["--since", "#99"], "does not exist yet"),
        (["--since", "soon"], "'soon' cannot be read as a time"),
        (["--csv", "--json"], "cannot be used together"),
    ],
)
def test_usage_refuses_invalid_options(
    herdbook: Herdbook, arguments: list[str], text: str
) -> None:
    answer = herdbook("usage", *arguments)

    assert answer.code == 2
    assert text in answer.err
