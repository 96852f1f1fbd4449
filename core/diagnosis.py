"""What one check found out: how bad it is, what it is, and what to do about it."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Level(StrEnum):
    """How bad it is, from nothing to what somebody has to see to."""

    OK = "ok"
    NOTICE = "notice"
    WARNING = "warning"
    PROBLEM = "problem"


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """What one check found out.

    Attributes:
        check: Which check, by a stable word.
        level: How bad it is.
        what: What it found, in words.
        remedy: What to do; empty where nothing is to be done.
    """

    check: str
    level: Level
    what: str
    remedy: str = ""


def diagnosis(
    check: str, what: str, remedy: str = "", *, level: Level = Level.OK
) -> Diagnosis:
    """Return what a check found out; that all is well unless it says otherwise."""
    return Diagnosis(check=check, level=level, what=what, remedy=remedy)
