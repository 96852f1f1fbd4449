"""The package: its content, the cost of importing it, its public names."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import herdbook
import herdbook.core

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FRAMEWORKS = {
    *("litestar", "starlette", "uvicorn", "jinja2", "prometheus_client"),
    *("rich", "typer", "click"),
}


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Build the wheel that would ship."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "uv", "build", "--wheel"]
    subprocess.run(
        [*command, "--out-dir", str(folder), str(ROOT)],
        check=True,
        capture_output=True,
    )
    return zipfile.ZipFile(next(folder.glob("*.whl")))


@pytest.mark.slow
def test_wheel_installs_herdbook_and_nothing_next_to_it(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}

    assert tops == {"herdbook", f"herdbook-{PROJECT['version']}.dist-info"}


@pytest.mark.slow
def test_wheel_has_every_file_of_every_room(wheel: zipfile.ZipFile) -> None:
    shipped = {name for name in wheel.namelist() if name.startswith("herdbook/")}
    rooms = (
        *("cli", "core", "events", "gateway", "presentation", "projections"),
        *("sandbox", "service"),
    )
    expected = {
        f"herdbook/{path.relative_to(ROOT / room if room == 'library' else ROOT)}"
        for room in (*rooms, "library")
        for path in (ROOT / room).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    assert shipped == expected
    assert "herdbook/py.typed" in shipped
    assert {f"herdbook/{room}/py.typed" for room in rooms} <= shipped


def loaded_by(statement: str) -> set[str]:
    """Return the top-level modules that a statement loads in a new interpreter."""
    program = f"import sys\n{statement}\nprint(*sorted(sys.modules))"
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in ran.stdout.split()}


def test_library_loads_no_framework() -> None:
    assert loaded_by("import herdbook.core") & FRAMEWORKS == set()


def test_library_needs_no_more_than_it_says() -> None:
    names = {line.split(">")[0] for line in PROJECT["dependencies"]}

    assert names == {"aiosqlite", "httpx", "msgspec", "structlog", "transitions"}


def test_public_names_are_sorted_and_there() -> None:
    names = herdbook.core.__all__

    assert names == sorted(names)
    assert [name for name in names if not hasattr(herdbook.core, name)] == []


def test_changelog_knows_the_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()

    assert f"## [{PROJECT['version']}]" in changelog or "## [Unreleased]" in changelog


def test_make_lists_its_verbs() -> None:
    ran = subprocess.run(
        ["make", "--no-print-directory"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    verbs = [line.split()[1] for line in ran.stdout.splitlines()]
    expected = "install run test lint types imports check bench docs build clean"
    assert set(expected.split()) <= set(verbs)


def test_package_has_the_version_of_the_project() -> None:
    assert herdbook.__version__ == PROJECT["version"]
