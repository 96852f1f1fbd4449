"""Examples in the documentation run, and its links have targets."""

from __future__ import annotations

import asyncio
import re
import shutil
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.cli_runner import SandboxThread
from support.service_program import run_service

from herdbook import sandbox
from herdbook.core import ModelRegistry
from herdbook.events.facts import ModelDiscovered, ModelUsed
from herdbook.events.recorded import Cause, NewEvent
from herdbook.events.sqlite.store import SQLiteEventStore
from herdbook.events.store import ANY

ROOT = Path(__file__).parent.parent
FOLDERS = (
    "core events projections presentation service gateway cli sandbox tests "
    "library benchmarks docs"
)
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]


def python_of(page: str) -> str:
    """Return the first block of Python of a page."""
    found = re.search(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert found, f"{page} has no example"
    return found[1]


async def run(
    *arguments: str, cwd: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, while this loop serves what it asks."""
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, *arguments],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


async def test_readme_example_has_fewer_than_fifteen_lines_and_runs(
    tmp_path: Path,
) -> None:
    example = python_of("README.md")
    (tmp_path / "example.py").write_text(example)
    world = sandbox.World(clock=sandbox.RealClock(speed=100))

    async with sandbox.serve(world) as url:
        ran = await run("example.py", cwd=tmp_path, OLLAMA_HOST=url)

    assert len(example.splitlines()) < 15
    assert ran.stderr == ""
    assert ran.stdout.startswith("llama3.2:3b (")
    assert "pulled in" in ran.stdout
    assert ran.stdout.splitlines()[-1].split()[2:4] == ["used:", "an"]


def shell_of(page: str) -> str:
    """Return the first block of shell of a page."""
    found = re.search(r"```sh\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert found, f"{page} has no lines for a shell"
    return found[1]


@pytest.mark.parametrize("page", ["README.md", "docs/service.md"])
def test_lines_for_curl_run(page: str, tmp_path: Path) -> None:
    lines = shell_of(page)
    assert lines.count("curl ") > 4
    server = SandboxThread(
        sandbox.World(models="some", clock=sandbox.RealClock(speed=100))
    )

    with run_service(tmp_path / "herd.db", server.address) as program:
        ran = subprocess.run(
            ["bash", "-c", lines.replace("http://127.0.0.1:11435", program.address)],
            env={"PATH": "/usr/bin:/bin", "HERDBOOK": program.address},
            capture_output=True,
            text=True,
            check=False,
            timeout=50,
        )
        operations = program.get("/v1/operations")
    server.close()

    assert ran.returncode == 28  # the last line follows the log until its time is over
    assert "problem" not in ran.stdout
    assert "coding" in ran.stdout
    assert "event: recorded" in ran.stdout
    assert len(operations) == 1


async def test_library_page_example_runs(tmp_path: Path) -> None:
    example = python_of("docs/library.md")
    world = sandbox.World(clock=sandbox.RealClock(speed=100))

    async with sandbox.serve(world) as url:
        script = f"{example}\nimport asyncio\nasyncio.run(example({url!r}))\n"
        (tmp_path / "example.py").write_text(script)
        ran = await run("example.py", cwd=tmp_path)

    assert ran.stderr == ""
    assert "loaded Runner(" in ran.stdout
    assert "8192" in ran.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that has the package as a wheel lays it out."""
    package = tmp_path_factory.mktemp("typing") / "herdbook"
    shutil.copytree(ROOT / "library", package)
    for folder in ("core", "events", "projections"):
        shutil.copytree(ROOT / folder, package / folder)
    return package.parent


SNIPPETS = {
    "README.md": "",
    "docs/library.md": "",
    "docs/desired.md": "",
    "synchronous": """
from herdbook.sync import ModelManager
from herdbook.core import Plan


def example(plan: Plan) -> None:
    with ModelManager.open("herd.db", ollama="127.0.0.1") as manager:
        for progress in manager.pull("llama3.2:3b"):
            print(progress.percent)
        for step in manager.apply(plan):
            print(step.done)
        status = manager.configure("llama3.2:3b", num_ctx=8192)
        print(status.to_dict()["state"], manager.registry.find("llama3.2"))
""",
    "event.data": """
from herdbook.core import RecordedEvent
from herdbook.events.facts import ModelLoaded, PullCompleted


def describe(event: RecordedEvent) -> str:
    match event.data:
        case PullCompleted(size_bytes=size):
            return f"{size:,} bytes"
        case ModelLoaded(runner=runner):
            return runner.name
        case _:
            return event.type
""",
}


@pytest.mark.parametrize("source", SNIPPETS)
async def test_example_passes_strict_type_checks(
    source: str, installed: Path, tmp_path: Path
) -> None:
    (tmp_path / "example.py").write_text(SNIPPETS[source] or python_of(source))

    ran = await run(
        *("-m", "mypy", "--strict", "--follow-imports=silent", "example.py"),
        *("--cache-dir", str(installed / "cache")),
        cwd=tmp_path,
        MYPYPATH=str(installed),
    )

    assert ran.stdout == "Success: no issues found in 1 source file\n"


async def a_log(path: Path) -> None:
    """Write a log of two events."""
    async with await SQLiteEventStore.open(path) as store:
        for fact in (ModelDiscovered(digest="a" * 64, size_bytes=1), ModelUsed()):
            event = NewEvent(
                fact=fact,
                occurred_at=datetime.now(UTC),
                actor='cli:"ann" <ä\\>',
                cause=Cause.OBSERVED,
            )
            await store.append("model/local/a:1", [event], ANY)


async def test_log_page_checks_a_whole_log(tmp_path: Path) -> None:
    await a_log(tmp_path / "herd.db")

    ran = await run("-c", python_of("docs/log.md"), "herd.db", cwd=tmp_path)

    assert ran.stdout.startswith("2 events, chain intact, head ")
    assert ran.returncode == 0


@pytest.mark.parametrize(
    ("alteration", "found"),
    [
        ("UPDATE events SET actor = 'cli:bob' WHERE position = 1", "breaks at #1"),
        ("DELETE FROM events WHERE position = 2", "does not end at its head"),
    ],
)
async def test_log_page_finds_an_alteration(
    tmp_path: Path, alteration: str, found: str
) -> None:
    await a_log(tmp_path / "herd.db")
    raw = sqlite3.connect(tmp_path / "herd.db", isolation_level=None)
    raw.execute("DROP TRIGGER events_are_not_changed")
    raw.execute("DROP TRIGGER events_are_not_deleted")
    raw.execute(alteration)
    raw.close()

    ran = await run("-c", python_of("docs/log.md"), "herd.db", cwd=tmp_path)

    assert found in ran.stderr
    assert ran.returncode == 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    text = page.read_text()

    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    paths = re.findall(
        r"`((?:core|events|presentation|projections|service|cli|sandbox|tests|docs)/[\w/.-]+)`",
        text,
    )

    missing = [link for link in links if not (page.parent / link).exists()]
    missing += [path for path in paths if not (ROOT / path).exists()]
    assert missing == []


def test_architecture_names_only_files_that_exist() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    files = [
        path.as_posix()
        for folder in (ROOT / each for each in FOLDERS.split())
        for path in folder.rglob("*.*")
    ]
    named = set(re.findall(r"`([\w/]+\.(?:py|sql|js))`", page))

    missing = [name for name in named if not any(f.endswith(f"/{name}") for f in files)]

    assert missing == []


async def test_generated_pages_are_up_to_date() -> None:
    ran = await run("docs/generate.py", "--check", cwd=ROOT)

    assert ran.stdout + ran.stderr == ""


def test_catalogue_page_example_is_valid(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "catalogue.md").read_text()
    example = re.search(r"```toml\n(.*?)```", page, re.DOTALL)
    assert example
    path = tmp_path / "catalogue.toml"
    path.write_text(example[1])

    registry = ModelRegistry().with_catalogue(path)

    best = registry.for_role("coding")[0]
    assert best.name == "acme-coder"
    assert best.context == 65536
    assert registry.capabilities("llama3.1:8b").context == 16384
    assert registry.capabilities("llama3.1:8b").tools
