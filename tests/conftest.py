"""Run coroutine tests, and isolate every test from the environment."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import ssl
from collections.abc import Generator
from functools import cache

import pytest
import structlog
from hypothesis import HealthCheck, settings

from herdbook.core.logging import configure_later

pytest_plugins = ["support.postgres.fixture"]

settings.register_profile(
    "herdbook",
    deadline=None,  # machines are noisy
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("herdbook")

# Each client of httpx makes a context of its own, which reads all certificates.
ssl.create_default_context = cache(ssl.create_default_context)  # type: ignore[assignment]

# A shell that runs the tests in the background ignores SIGINT for them and for all
# commands that they start, and those would not stop at Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Rich takes a tenth of a second for each traceback in the log.
for processor in structlog.get_config()["processors"]:
    if isinstance(processor, structlog.dev.ConsoleRenderer):
        processor.exception_formatter = structlog.dev.plain_traceback


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an ``async def`` test to its end in a loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames  # the arguments this test asked for
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


@pytest.fixture(autouse=True)
def isolated_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the environment of the user who runs the tests."""
    variables = (
        *("OLLAMA_HOST", "HERDBOOK_DB", "HERDBOOK_NODE", "HERDBOOK_CATALOGUE"),
        *("PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE", "PGSERVICE"),
        *("NO_COLOR", "COLUMNS", "LINES"),
    )
    for name in variables:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", os.devnull)
    configure_later(None)  # a command in this process may have left it for later


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter,
) -> Generator[None]:
    """Report at the end how many browser tests were skipped, and how to run them."""
    yield
    skipped = terminalreporter.getreports("skipped")
    left_out = [one for one in skipped if one.nodeid.startswith("tests/browser/")]
    if left_out:
        terminalreporter.write_line(
            f"{len(left_out)} browser tests were skipped: Chromium is not installed. "
            "To run them: apt-get install chromium"
        )
