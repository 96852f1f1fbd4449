"""The screenshots of the dashboard: each exists, is small, and is shown."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "dashboard.md").read_text("utf-8")
SHOWN = re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", PAGE)


def test_every_picture_is_there_and_says_what_it_shows() -> None:
    assert SHOWN
    assert [path for _, path in SHOWN if not (DOCS / path).is_file()] == []
    assert [path for result, path in SHOWN if len(result) < 20] == []


def test_no_picture_is_large_or_left_over() -> None:
    there = {f"screens/{file.name}": file for file in DOCS.glob("screens/*")}

    assert set(there) == {path for _, path in SHOWN}
    assert [name for name, file in there.items() if file.stat().st_size > 250_000] == []
