"""Moments as people say and read them, in their own time zone.

What is shown and what is understood depends on one ``Now``: a moment and a zone,
so that a test can hold both still.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import NamedTuple

from herdbook.core import CallerError

FORMS = (
    "#123",
    "2026-11-24T14:02:00Z",
    "2026-11-24 14:02",
    "14:02",
    "yesterday 17:40",
    "2 hours ago",
    "now",
)
"""The forms in which a moment can be given, one example of each."""

_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604_800}
_SHORT = {"s": "second", "min": "minute", "h": "hour", "d": "day"}
_AGO = re.compile(r"(\d+) ?([a-z]+?)s? ago")
_CLOCK = re.compile(r"(?:(today|yesterday) )?(\d{1,2}):(\d{2})(?::(\d{2}))?")
_ISO = re.compile(r"\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}.*)?")


class InvalidTimeError(CallerError):
    """What was given is no moment in a form that is understood."""

    code = "invalid_time"

    def __init__(self, text: str, *, future: bool = False) -> None:
        state = "lies in the future" if future else "is no moment"
        remedy = "" if future else f"Forms: {', '.join(FORMS)}"
        super().__init__(f"{text[:80]!r}", state, remedy)


class Now(NamedTuple):
    """The present, and the zone that the reader lives in.

    Attributes:
        at: The present moment.
        zone: The reader's zone; None for the computer's own.
    """

    at: datetime
    zone: tzinfo | None = None

    @classmethod
    def here(cls) -> Now:
        """Return the computer's own present."""
        return cls(datetime.now(UTC))

    def ago(self, moment: datetime) -> str:
        """Return how long ago a moment is: ``2 min ago``, ``yesterday``."""
        seconds = (self.at - moment).total_seconds()
        if seconds < 1:
            return "just now"
        if seconds < 60:
            return f"{seconds:.0f} s ago"
        if seconds < 3600:
            return f"{seconds // 60:.0f} min ago"
        days = self._days_since(moment)
        if days == 0 or seconds < 12 * 3600:
            return f"{seconds // 3600:.0f} h ago"
        return _day_text(days, self._local(moment).date())

    def clock(self, moment: datetime, *, seconds: bool = True) -> str:
        """Return when a moment is by the clock: ``yesterday 17:40:02``."""
        local = self._local(moment)
        days = self._days_since(moment)
        at = f"{local:%H:%M:%S}" if seconds else f"{local:%H:%M}"
        if days == 0:
            return at
        word = "tomorrow" if days == -1 else _day_text(days, local.date(), most=6)
        return f"{word} {at}"

    def read(self, text: str) -> int | datetime:
        """Return the position or the moment that a text means.

        A time of day without a day is the last time that it was so late. A moment
        without a zone is in the reader's own.

        Raises:
            InvalidTimeError: It is in none of the forms, or in the future.
        """
        words = " ".join(text.lower().split())
        if re.fullmatch(r"#?\d{1,18}", words):
            return int(words.removeprefix("#"))
        try:
            moment = self._read(words)
        except (ValueError, OverflowError):
            raise InvalidTimeError(text) from None
        if moment > self.at:
            raise InvalidTimeError(text, future=True)
        return moment

    def _read(self, words: str) -> datetime:
        if words == "now":
            return self.at
        if ago := _AGO.fullmatch(words):
            unit = _SHORT.get(ago[2], ago[2])
            if unit not in _SECONDS:
                raise ValueError(unit)
            return self.at - timedelta(seconds=int(ago[1]) * _SECONDS[unit])
        if clock := _CLOCK.fullmatch(words):
            return self._read_clock(*clock.groups())
        if not _ISO.fullmatch(words.upper()):
            raise ValueError(words)
        return self._zoned(datetime.fromisoformat(words.upper()))

    def _read_clock(
        self, day: str | None, hours: str, minutes: str, seconds: str | None
    ) -> datetime:
        at = time(int(hours), int(minutes), int(seconds or 0))
        today = self._local(self.at).date()
        wanted = today - timedelta(days=day == "yesterday")
        moment = self._zoned(datetime.combine(wanted, at))
        if day is None and moment > self.at:
            yesterday = today - timedelta(days=1)
            return self._zoned(datetime.combine(yesterday, at))
        return moment

    def _local(self, moment: datetime) -> datetime:
        return moment.astimezone(self.zone)

    def _zoned(self, moment: datetime) -> datetime:
        """Return a moment in UTC; one without a zone is in the reader's."""
        if moment.tzinfo is None and self.zone is not None:
            moment = moment.replace(tzinfo=self.zone)
        return moment.astimezone(UTC)

    def _days_since(self, moment: datetime) -> int:
        return (self._local(self.at).date() - self._local(moment).date()).days


def _day_text(days: int, day: date, *, most: int = 29) -> str:
    if days == 1:
        return "yesterday"
    return f"{days} days ago" if 1 < days <= most else day.isoformat()
