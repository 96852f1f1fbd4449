"""The result of one check: its level, the finding and the remedy."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from herdbook.projections.serializable import Serializable


class Level(StrEnum):
    """The severity of a finding, in rising order."""

    OK = "ok"
    NOTICE = "notice"
    WARNING = "warning"
    PROBLEM = "problem"


class Diagnosis(Serializable, msgspec.Struct, frozen=True, kw_only=True):
    """The result of one check.

    Attributes:
        check: The check's stable name.
        level: The severity.
        what: The finding, as text.
        remedy: What to do; empty if nothing needs to be done.
        node: The node that was checked, if there are several; otherwise left out.
    """

    check: str
    level: Level
    what: str
    remedy: str = ""
    node: str | msgspec.UnsetType = msgspec.UNSET


def diagnosis(
    check: str, what: str, remedy: str = "", *, level: Level = Level.OK
) -> Diagnosis:
    """Return the result of a check; by default that all is well."""
    return Diagnosis(check=check, level=level, what=what, remedy=remedy)
