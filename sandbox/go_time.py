"""Read and write times as the server does: Go's durations and dates.

Invariant: what Go refuses is refused with the same text.
"""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta, timezone
from typing import Final

from herdbook.sandbox.refusals import Refusal

FOREVER: Final = math.inf

_UNITS: Final = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
_DURATION: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[a-zµ]+(?:\d+\.?\d*)?)*")
_STEP: Final = re.compile(r"(\d+\.?\d*|\.\d+)([a-zµ]*)")
_GO_NAMES: Final = {
    bool: "bool",
    list: "[]interface {}",
    dict: "map[string]interface {}",
}

#: The longest time that Go can express in nanoseconds; more overflows to below zero.
_LONGEST_S: Final = (2**63 - 1) / 1e9
#: How the server shows an unlimited keep-alive: now plus the longest time.
FOREVER_S: Final = _LONGEST_S


def duration_s(text: str) -> float:
    """Read a Go duration such as ``1h30m``, in seconds.

    Raises:
        Refusal: The text is not a duration; with the text of ``time.ParseDuration``.
    """
    if text in {"0", "+0", "-0"}:
        return 0.0
    if not _DURATION.fullmatch(text):
        raise Refusal(400, f'time: invalid duration "{text}"')
    seconds = 0.0
    for number, unit in _STEP.findall(text):
        if not unit:
            raise Refusal(400, f'time: missing unit in duration "{text}"')
        if unit not in _UNITS:
            words = f'time: unknown unit "{unit}" in duration "{text}"'
            raise Refusal(400, words)
        seconds += float(number) * _UNITS[unit]
    return -seconds if text.startswith("-") else seconds


def keep_alive_s(value: object, *, whole_seconds: bool = False) -> float | None:
    """Read ``keep_alive``, in seconds; None where none was given.

    Args:
        value: Value in the request.
        whole_seconds: Whether to cut fractions and to end an overflow at zero, as
            older servers do.

    Raises:
        Refusal: It is neither a number nor a duration.
    """
    match value:
        case None:
            return None
        case bool() | list() | dict():
            raise Refusal(400, f"Unsupported type: '{_GO_NAMES[type(value)]}'")
        case int() | float():
            seconds = math.trunc(value) if whole_seconds else float(value)
        case _:
            seconds = duration_s(str(value))
    if seconds < 0:
        return FOREVER
    if seconds > _LONGEST_S:
        return 0.0 if whole_seconds else -1.0
    return float(seconds)


def go_date(at: datetime, zone_minutes: int = 0) -> str:
    """Write a date as Go does: nanoseconds without the zeros at their end.

    Args:
        at: The date. The missing nanoseconds are derived from its microseconds.
        zone_minutes: Time zone to write it in, minutes east of Greenwich.
    """
    nanoseconds = at.microsecond * 1000 + at.microsecond * 7919 % 1000
    fraction = f"{nanoseconds:09d}".rstrip("0")
    at = at.astimezone(timezone(timedelta(minutes=zone_minutes)))
    zone = at.isoformat()[-6:] if zone_minutes else "Z"
    return f"{at:%Y-%m-%dT%H:%M:%S}{'.' if fraction else ''}{fraction}{zone}"
