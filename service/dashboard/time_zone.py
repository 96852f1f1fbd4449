"""The reader's time zone: what the browser says of it, if there is such a zone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

COOKIE: Final = "zone"
"""The cookie in which the page's script says it."""

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}")
_LONGEST: Final = 64


def time_zone_of(cookies: Mapping[str, str]) -> ZoneInfo | None:
    """Return the zone that a browser says; None for the server's own."""
    name = unquote(cookies.get(COOKIE, ""))
    if len(name) > _LONGEST or not _NAME.fullmatch(name):
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a folder's name
        return None
