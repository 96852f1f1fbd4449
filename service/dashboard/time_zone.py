"""The reader's time zone, as the browser reports it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

COOKIE: Final = "zone"
"""The cookie in which the script of the page reports it."""

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}")
_LONGEST: Final = 64


def time_zone_of(cookies: Mapping[str, str]) -> ZoneInfo | None:
    """Return the zone that a browser reports; None for the zone of the server."""
    name = unquote(cookies.get(COOKIE, ""))
    if len(name) > _LONGEST or not _NAME.fullmatch(name):
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a folder
        return None
