"""A person at a real browser: one Chromium a worker, a fresh profile for each test.

Playwright keeps a loop running in its thread, where ``asyncio.run`` would refuse; so
the tests in here run in a thread of their own, and others in the same worker do not
meet it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cli_runner import SandboxThread
from support.service_program import ServiceThread, run_in_thread
from support.web.browser import (
    MISSING,
    BrowserThread,
    PageSession,
    executable,
    sandbox_world,
)

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what needs a browser where there is none, unless it is required."""
    if executable() or os.environ.get("HERDBOOK_BROWSER") == "required":
        return
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=MISSING))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that visits pages in the browser's thread, and see what it left."""
    visits = pyfuncitem.funcargs.get("visits")
    if not isinstance(visits, PageSession):
        return None
    names = pyfuncitem._fixtureinfo.argnames  # the arguments this test asked for
    given = {name: pyfuncitem.funcargs[name] for name in names}
    visits.stage.run(lambda: visits.run(lambda: pyfuncitem.obj(**given)))
    return True


@pytest.fixture(scope="session")
def stage() -> Iterator[BrowserThread]:
    """Return the browser of this worker."""
    stage = BrowserThread()
    yield stage
    stage.close()


@pytest.fixture
def visits(stage: BrowserThread) -> PageSession:
    """Return what opens pages, and watches over them."""
    return PageSession(stage)


@pytest.fixture(scope="module")
def ollama() -> Iterator[SandboxThread]:
    """Return a fast sandbox server."""
    server = SandboxThread(sandbox_world())
    yield server
    server.close()


@pytest.fixture(scope="module")
def herdbook(
    tmp_path_factory: pytest.TempPathFactory, ollama: SandboxThread
) -> Iterator[ServiceThread]:
    """Return a service that the tests of a module share, each with its own model."""
    log = tmp_path_factory.mktemp("herdbook") / "herd.db"
    with run_in_thread(log, ollama.address) as running:
        yield running


@pytest.fixture(scope="module")
def slow_ollama() -> Iterator[SandboxThread]:
    """Return a sandbox server with a slow registry."""
    server = SandboxThread(sandbox_world(speed=1))
    yield server
    server.close()
