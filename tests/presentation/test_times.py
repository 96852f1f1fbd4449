from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from herdbook.presentation.times import InvalidTimeError, Now

NOON = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
NOW = Now(NOON, UTC)


@pytest.mark.parametrize(
    ("passed", "expected"),
    [
        (timedelta(seconds=-5), "just now"),
        (timedelta(seconds=0.4), "just now"),
        (timedelta(seconds=13), "13 s ago"),
        (timedelta(minutes=2, seconds=50), "2 min ago"),
        (timedelta(hours=11), "11 h ago"),
        (timedelta(hours=13), "yesterday"),
        (timedelta(days=3), "3 days ago"),
        (timedelta(days=29), "29 days ago"),
        (timedelta(days=30), "2026-10-25"),
    ],
)
def test_ago_is_short_and_relative(passed: timedelta, expected: str) -> None:
    assert NOW.ago(NOON - passed) == expected


def test_ago_within_a_night_is_in_hours() -> None:
    after_midnight = Now(datetime(2026, 11, 24, 0, 30, tzinfo=UTC), UTC)

    assert after_midnight.ago(datetime(2026, 11, 23, 22, 30, tzinfo=UTC)) == "2 h ago"


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (datetime(2026, 11, 24, 9, 3, 10, tzinfo=UTC), "09:03:10"),
        (datetime(2026, 11, 23, 17, 40, 2, tzinfo=UTC), "yesterday 17:40:02"),
        (datetime(2026, 11, 21, 9, 3, 10, tzinfo=UTC), "21 Nov 09:03:10"),
        (datetime(2026, 2, 3, 9, 3, 10, tzinfo=UTC), "3 Feb 09:03:10"),
        (datetime(2025, 11, 17, 9, 3, 10, tzinfo=UTC), "2025-11-17 09:03:10"),
        (datetime(2026, 11, 25, 9, 0, 0, tzinfo=UTC), "tomorrow 09:00:00"),
    ],
)
def test_clock_has_the_day_unless_it_is_today(moment: datetime, expected: str) -> None:
    assert NOW.clock(moment) == expected


def test_clock_is_in_the_zone_of_the_reader() -> None:
    east = Now(NOON, timezone(timedelta(hours=9)))

    assert east.clock(NOON) == "21:00:00"


@pytest.mark.parametrize("text", ["#123", "123", " #123 "])
def test_positions_are_parsed(text: str) -> None:
    assert NOW.parse(text) == 123


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("now", NOON),
        ("2026-11-24T09:02:00Z", datetime(2026, 11, 24, 9, 2, tzinfo=UTC)),
        ("2026-11-24T09:02:00.25+02:00", datetime(2026, 11, 24, 7, 2, 0, 250_000, UTC)),
        ("2026-11-24 09:02", datetime(2026, 11, 24, 9, 2, tzinfo=UTC)),
        ("2026-11-20", datetime(2026, 11, 20, tzinfo=UTC)),
        ("9:02", datetime(2026, 11, 24, 9, 2, tzinfo=UTC)),
        ("14:02", datetime(2026, 11, 23, 14, 2, tzinfo=UTC)),
        ("09:02:30", datetime(2026, 11, 24, 9, 2, 30, tzinfo=UTC)),
        ("today 09:02", datetime(2026, 11, 24, 9, 2, tzinfo=UTC)),
        ("Yesterday  17:40", datetime(2026, 11, 23, 17, 40, tzinfo=UTC)),
        ("2 hours ago", NOON - timedelta(hours=2)),
        ("1 day ago", NOON - timedelta(days=1)),
        ("5 min ago", NOON - timedelta(minutes=5)),
        ("90s ago", NOON - timedelta(seconds=90)),
        ("3 weeks ago", NOON - timedelta(weeks=3)),
        ("24h", NOON - timedelta(hours=24)),
        ("5m", NOON - timedelta(minutes=5)),
        ("2d ago", NOON - timedelta(days=2)),
        ("2h ago", NOON - timedelta(hours=2)),
        ("today", datetime(2026, 11, 24, tzinfo=UTC)),
        ("Yesterday", datetime(2026, 11, 23, tzinfo=UTC)),
        ("2026-11-24T09:02Z", datetime(2026, 11, 24, 9, 2, tzinfo=UTC)),
        ("an hour ago", NOON - timedelta(hours=1)),
        ("a day ago", NOON - timedelta(days=1)),
        ("last week", NOON - timedelta(weeks=1)),
        ("yesterday at 17:40", datetime(2026, 11, 23, 17, 40, tzinfo=UTC)),
        ("at 9:02", datetime(2026, 11, 24, 9, 2, tzinfo=UTC)),
        ("noon", NOON),
        ("12pm", NOON),
        ("today 9am", datetime(2026, 11, 24, 9, tzinfo=UTC)),
        ("yesterday 5:40 pm", datetime(2026, 11, 23, 17, 40, tzinfo=UTC)),
        ("yesterday 12:30 AM", datetime(2026, 11, 23, 0, 30, tzinfo=UTC)),
        ("yesterday noon", datetime(2026, 11, 23, 12, tzinfo=UTC)),
        ("midnight", datetime(2026, 11, 24, tzinfo=UTC)),
        ("monday", datetime(2026, 11, 23, tzinfo=UTC)),
        ("last tuesday 10:00", datetime(2026, 11, 17, 10, tzinfo=UTC)),
    ],
)
def test_times_are_parsed(text: str, moment: datetime) -> None:
    assert NOW.parse(text) == moment


def test_time_without_a_zone_is_in_the_zone_of_the_reader() -> None:
    east = Now(NOON, timezone(timedelta(hours=9)))

    assert east.parse("2026-11-24 09:00") == datetime(2026, 11, 24, tzinfo=UTC)


def test_default_zone_is_that_of_the_computer() -> None:
    local = Now(NOON)

    assert local.parse("2026-11-20 09:00") == datetime(2026, 11, 20, 9).astimezone(UTC)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tomorrow",
        "5 q",
        "25:00",
        "12:61",
        "2 moons ago",
        "99999999999999 days ago",
        "2026-13-01",
        "20261124T090000",
        "#-1",
        "#99999999999999999999",
        "half past two",
    ],
)
def test_unknown_form_is_refused(text: str) -> None:
    with pytest.raises(InvalidTimeError, match="cannot be read as a time"):
        NOW.parse(text)


@pytest.mark.parametrize("text", ["2026-11-25", "today 13:00"])
def test_time_in_the_future_is_refused(text: str) -> None:
    with pytest.raises(InvalidTimeError, match="is in the future"):
        NOW.parse(text)


def test_error_of_an_unknown_form_has_examples() -> None:
    with pytest.raises(InvalidTimeError) as caught:
        NOW.parse("last year")

    assert str(caught.value) == (
        "'last year' cannot be read as a time. "
        "Try: yesterday 17:40, 2h ago, 2026-11-24T14:02Z, #123"
    )
