"""Parse and format times for people, in their own time zone.

The results depend on one ``Now``, the present time and a zone, so that tests can fix
both.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, tzinfo
from datetime import time as time_of_day
from typing import NamedTuple

from herdbook.core import CallerError

FORMS = ("yesterday 17:40", "2h ago", "2026-11-24T14:02Z", "#123")
"""Examples of the forms of a time."""

_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604_800}
_SHORT = {
    "s": "second",
    "sec": "second",
    "m": "minute",
    "min": "minute",
    "h": "hour",
    "hr": "hour",
    "d": "day",
    "w": "week",
}
_DAYS = {"today": 0, "yesterday": 1}
_DAY_WORDS = {1: "yesterday", -1: "tomorrow"}
_WEEKDAYS = (
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
)
# As texts, which ``re`` compiles and keeps when they are first needed.
_AGO = r"(\d+) ?([a-z]+?)s?(?: ago)?"
_ONE_AGO = r"(?:an? ([a-z]+) ago|last (minute|hour|week))"
_DAY = f"today|yesterday|(?:last )?(?:{'|'.join(_WEEKDAYS)})"
_CLOCK = rf"(?:({_DAY}) (?:at )?)?(?:at )?(\d{{1,2}}):(\d{{2}})(?::(\d{{2}}))?"
_TWELVE_HOURS = r"\b(1[0-2]|0?[1-9])(:\d{2}(?::\d{2})?)? ?([ap])m$"
_NAMED_CLOCK = {"noon": "12:00", "midnight": "00:00"}
_ISO = r"\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}.*)?"


class InvalidTimeError(CallerError):
    """A text is not a time, or is a time in the future."""

    code = "invalid_time"

    def __init__(self, text: str, *, future: bool = False) -> None:
        if future:
            super().__init__(f"{text[:80]!r}", "is in the future")
        else:
            remedy = f"Try: {', '.join(FORMS)}"
            super().__init__(f"{text[:80]!r}", "cannot be read as a time", remedy)


def parse_duration(text: str) -> float:
    """Parse an interval, such as ``1d``, ``12h`` or ``30 minutes``; return seconds.

    Raises:
        CallerError: The text is not an interval.
    """
    found = re.fullmatch(_AGO, " ".join(text.lower().split()))
    unit = _SHORT.get(found[2], found[2]) if found else ""
    if found is None or unit not in _SECONDS or len(found[1]) > 6:
        raise CallerError(
            f"Cannot read {text[:80]!r}", "as an interval", "Try: 1d, 12h, 30m"
        )
    return float(int(found[1]) * _SECONDS[unit])


class Now(NamedTuple):
    """The present time and the time zone of the reader.

    Attributes:
        at: The present time.
        zone: Zone of the reader; None for the zone of the computer.
    """

    at: datetime
    zone: tzinfo | None = None

    @classmethod
    def local(cls) -> Now:
        """Return the present time in the zone of the computer."""
        return cls(datetime.now(UTC))

    def ago(self, time: datetime) -> str:
        """Return how long ago a time was: ``2 min ago``, ``yesterday``."""
        seconds = (self.at - time).total_seconds()
        if seconds < 1:
            return "just now"
        if seconds < 60:
            return f"{seconds:.0f} s ago"
        if seconds < 3600:
            return f"{seconds // 60:.0f} min ago"
        days = self._days_since(time)
        if days == 0 or seconds < 12 * 3600:
            return f"{seconds // 3600:.0f} h ago"
        return _day_text(days, self._local(time).date())

    def clock(self, time: datetime, *, seconds: bool = True) -> str:
        """Return a time of day, with the day unless it is today: ``24 Nov 09:03:10``.

        A day of more than ten months ago has its year.
        """
        local = self._local(time)
        days = self._days_since(time)
        at = f"{local:%H:%M:%S}" if seconds else f"{local:%H:%M}"
        if days == 0:
            return at
        word = _DAY_WORDS.get(days)
        if word is None:
            day = local.date()
            word = f"{day.day} {day:%b}" if abs(days) < 300 else day.isoformat()
        return f"{word} {at}"

    def exact(self, time: datetime) -> str:
        """Return a time with date and zone: ``2026-11-27 14:02:11 UTC+01:00``."""
        local = self._local(time)
        offset = f"{local:%z}"
        zone = "UTC" if offset == "+0000" else f"UTC{offset[:3]}:{offset[3:5]}"
        return f"{local:%Y-%m-%d %H:%M:%S} {zone}"

    def parse(self, text: str, *, future: bool = False) -> int | datetime:
        """Parse a position or a time, such as ``#123``, ``yesterday`` or ``24h``.

        A day without a time of day is its start. A weekday is the last one before
        today. A time of day without a day is in the last 24 hours. A time without a
        zone is in the zone of the reader.

        Args:
            text: The text.
            future: Whether it may be in the future.

        Raises:
            InvalidTimeError: The text has no known form, or is in the future and may
                not be.
        """
        words = " ".join(text.lower().split())
        if re.fullmatch(r"#?\d{1,18}", words):
            return int(words.removeprefix("#"))
        try:
            found = self._parse(words)
        except (ValueError, OverflowError):
            raise InvalidTimeError(text) from None
        if found > self.at and not future:
            raise InvalidTimeError(text, future=True)
        return found

    def _parse(self, words: str) -> datetime:
        if words == "now":
            return self.at
        for name, clock_text in _NAMED_CLOCK.items():
            words = re.sub(rf"\b{name}$", clock_text, words)
        words = re.sub(_TWELVE_HOURS, _in_24_hours, words)
        if re.fullmatch(_DAY, words):
            return self._parse_clock(words, "0", "0", None)
        if one := re.fullmatch(_ONE_AGO, words):
            words = f"1 {one[1] or one[2]}"
        if ago := re.fullmatch(_AGO, words):
            unit = _SHORT.get(ago[2], ago[2])
            if unit not in _SECONDS:
                raise ValueError(unit)
            return self.at - timedelta(seconds=int(ago[1]) * _SECONDS[unit])
        if clock := re.fullmatch(_CLOCK, words):
            return self._parse_clock(*clock.groups())
        if not re.fullmatch(_ISO, words.upper()):
            raise ValueError(words)
        return self._zoned(datetime.fromisoformat(words.upper()))

    def _parse_clock(
        self, day: str | None, hours: str, minutes: str, seconds: str | None
    ) -> datetime:
        clock = time_of_day(int(hours), int(minutes), int(seconds or 0))
        today = self._local(self.at).date()
        date_ = today - timedelta(days=_days_back(day or "today", today))
        found = self._zoned(datetime.combine(date_, clock))
        if day is None and found > self.at:
            yesterday = today - timedelta(days=1)
            return self._zoned(datetime.combine(yesterday, clock))
        return found

    def _local(self, time: datetime) -> datetime:
        return time.astimezone(self.zone)

    def _zoned(self, time: datetime) -> datetime:
        """Convert a time to UTC; a time without a zone is in the reader's zone."""
        if time.tzinfo is None and self.zone is not None:
            time = time.replace(tzinfo=self.zone)
        return time.astimezone(UTC)

    def _days_since(self, time: datetime) -> int:
        return (self._local(self.at).date() - self._local(time).date()).days


def _in_24_hours(clock: re.Match[str]) -> str:
    """Convert a time such as ``9am`` or ``12:30 pm``."""
    hours = int(clock[1]) % 12 + (12 if clock[3] == "p" else 0)
    return f"{hours}{clock[2] or ':00'}"


def _days_back(day: str, today: date) -> int:
    """Return how many days ago a day was: yesterday, or the last weekday of a name."""
    if day in _DAYS:
        return _DAYS[day]
    weekday = _WEEKDAYS.index(day.removeprefix("last "))
    return (today.weekday() - weekday - 1) % 7 + 1


def _day_text(days: int, day: date) -> str:
    if days == 1:
        return "yesterday"
    return f"{days} days ago" if 1 < days <= 29 else day.isoformat()
