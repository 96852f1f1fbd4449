"""A path for a log."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Return the path of a log that does not exist yet, in a directory of its own."""
    (tmp_path / "data").mkdir()
    return tmp_path / "data" / "herd.db"
