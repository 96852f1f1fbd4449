"""Names, durations and dates as Go reads and writes them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from herdbook.sandbox.go_time import FOREVER, duration_s, go_date, keep_alive_s
from herdbook.sandbox.models.names import Name
from herdbook.sandbox.refusals import Refusal


@pytest.mark.parametrize(
    ("text", "display"),
    [
        ("plain", "plain:latest"),
        ("registry.ollama.ai/library/plain", "plain:latest"),
        ("ns/Other:V1", "ns/Other:V1"),
        ("hf.co/user/repo.v1:Q4_K_M", "hf.co/user/repo.v1:Q4_K_M"),
        ("localhost:5000/ns/model", "localhost:5000/ns/model:latest"),
        ("http://127.0.0.1:5055/library/x", "127.0.0.1:5055/library/x:latest"),
    ],
)
def test_name_is_displayed_in_its_shortest_form(text: str, display: str) -> None:
    name = Name.parse(text)

    assert name is not None
    assert name.display == display


@pytest.mark.parametrize(
    "text", ["", "bad name", "-x", "plain:", ":latest", "a/b/c/d/e", "x@sha256-00", "é"]
)
def test_invalid_name_is_refused_as_a_whole(text: str) -> None:
    assert Name.parse(text) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1h30m", 5400.0), ("90s", 90.0), ("-1m", -60.0), ("1.5m", 90.0), ("0", 0.0)],
)
def test_duration_is_parsed(text: str, seconds: float) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("5", 'time: missing unit in duration "5"'),
        ("abc", 'time: invalid duration "abc"'),
        ("5x", 'time: unknown unit "x" in duration "5x"'),
    ],
)
def test_invalid_duration_is_refused_in_the_words_of_go(text: str, words: str) -> None:
    with pytest.raises(Refusal) as refused:
        duration_s(text)

    assert refused.value.text == words


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(None, None), (300, 300.0), (3.5, 3.5), (-1, FOREVER), ("-1m", FOREVER), (0, 0.0)],
)
def test_keep_alive_is_parsed(value: object, seconds: float | None) -> None:
    assert keep_alive_s(value) == seconds


def test_huge_keep_alive_overflows() -> None:
    assert keep_alive_s(1e30) == -1.0
    assert keep_alive_s(1e30, whole_seconds=True) == 0.0


def test_keep_alive_of_another_type_is_refused() -> None:
    with pytest.raises(Refusal, match="Unsupported type: 'map"):
        keep_alive_s({})


def test_date_has_nanoseconds_without_trailing_zeros() -> None:
    assert go_date(datetime(2026, 1, 1, tzinfo=UTC)) == "2026-01-01T00:00:00Z"
    assert go_date(datetime(2026, 1, 1, 0, 0, 0, 3, UTC)) == (
        "2026-01-01T00:00:00.000003757Z"
    )


def test_date_is_shown_in_the_zone_of_the_server() -> None:
    result = go_date(datetime(2026, 1, 1, tzinfo=UTC), zone_minutes=-420)

    assert result == "2025-12-31T17:00:00-07:00"
