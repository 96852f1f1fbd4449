from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from support.archives import archive_all, fill


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("filled") / "herd.db"
    asyncio.run(fill(path))
    return path


@pytest.fixture
def path(tmp_path: Path, filled: Path) -> Path:
    """A log with enough events for two archives."""
    return Path(shutil.copy(filled, tmp_path / "herd.db"))


@pytest.fixture(scope="session")
def archived_once(
    filled: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A log with two archived blocks in one archive, which is in another directory."""
    log = Path(shutil.copy(filled, tmp_path_factory.mktemp("archived") / "herd.db"))
    made = asyncio.run(archive_all(log))
    return log, Path(shutil.move(made.file, tmp_path_factory.mktemp("file")))


@pytest.fixture
def archived(tmp_path: Path, archived_once: tuple[Path, Path]) -> tuple[Path, Path]:
    """A log with an archive next to it."""
    log, file = (Path(shutil.copy(each, tmp_path)) for each in archived_once)
    return log, file
