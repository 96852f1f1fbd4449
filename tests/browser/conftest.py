"""A real browser: one Chromium per worker, and a fresh profile for each test.

Playwright keeps an event loop running in its thread, in which ``asyncio.run`` fails. So
these tests run in a thread of their own, and do not disturb others of the same worker.
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
    """Skip the tests that need a browser where there is none, unless it is required."""
    if executable() or os.environ.get("HERDBOOK_BROWSER") == "required":
        return
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=MISSING))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test in the browser's thread, and fail it on errors of its pages."""
    visits = pyfuncitem.funcargs.get("visits")
    if not isinstance(visits, PageSession):
        return None
    names = pyfuncitem._fixtureinfo.argnames  # the arguments this test asked for
    given = {name: pyfuncitem.funcargs[name] for name in names}
    visits.thread.run(lambda: visits.run(lambda: pyfuncitem.obj(**given)))
    return True


@pytest.fixture(scope="session")
def browser_thread() -> Iterator[BrowserThread]:
    """Return the browser of this worker."""
    thread = BrowserThread()
    yield thread
    thread.close()


@pytest.fixture
def visits(browser_thread: BrowserThread) -> PageSession:
    """Return a session that opens pages and collects their errors."""
    return PageSession(browser_thread)


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
