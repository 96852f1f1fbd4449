"""A real browser in a thread, and pages that fail a test on any error."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import cache
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar
from urllib.parse import urlsplit

from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Locator,
    Page,
    Request,
    expect,
    sync_playwright,
)
from support.cli_runner import FAST
from support.service_program import RunningService
from support.waiting import wait_until

from herdbook.sandbox import RealClock, Settings, World

T = TypeVar("T")

MISSING = "Chromium is not installed. To install it: apt-get install chromium"
CHROMIUM_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update"),
    "--disable-sync",
)
"""Options that keep Chromium off the network."""

PATIENCE_MS = 10_000
"""Maximum time of each wait for a page, milliseconds."""

LONGEST_S = 55.0
"""Maximum seconds of a test, below the limit of the runner."""

VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) =>
  console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`));
"""
ZONE = "UTC"


MODELS = (
    *("llama3.2:3b", "qwen2.5-coder:7b", "nomic-embed-text:latest", "smollm2:135m"),
    *("gemma3:4b", "mistral:7b", "phi3:3.8b", "tinyllama:1.1b", "codellama:7b"),
)
"""Models of the sandbox server, enough for one per test."""


SLOW_REGISTRY, FAST_REGISTRY = {"rate": 2e7}, {"rate": 1e9}
"""Registries that take seconds for a small model, and almost no time."""


@cache
def executable() -> str | None:
    """Return the path of Chromium, or None."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


class _Worker:
    """A browser, and the only thread that may use it."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._playwright: Any = None
        self._browser: Browser | None = None
        Thread(target=self._work, name="browser", daemon=True).start()

    def _work(self) -> None:
        while True:
            self._calls.get()()

    def begin(self, call: Callable[[], T]) -> Future[T]:
        """Start a call in the thread."""
        future: Future[T] = Future()

        def called() -> None:
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001 - raised by who waits
                future.set_exception(error)

        self._calls.put(called)
        return future

    @property
    def browser(self) -> Browser:
        """The browser, started on first use."""
        if self._browser is None:
            path = executable()
            assert path, MISSING
            expect.set_options(timeout=PATIENCE_MS)
            self._playwright = sync_playwright().start()
            self._browser = self._playwright.chromium.launch(
                executable_path=path, args=list(CHROMIUM_FLAGS)
            )
        return self._browser

    def end(self) -> None:
        """End the browser."""
        if self._browser is not None:
            self._browser.close()
            self._playwright.stop()


class BrowserThread:
    """A browser in a thread, replaced if it does not answer."""

    def __init__(self) -> None:
        self._worker = _Worker()

    def run(self, call: Callable[[], T], within_s: float = LONGEST_S) -> T:
        """Run a call in the browser's thread.

        Raises:
            TimeoutError: The call took too long; the browser is replaced.
        """
        future = self._worker.begin(call)
        try:
            return future.result(within_s)
        except TimeoutError:
            if not future.done():
                self._worker = _Worker()
            raise

    @property
    def browser(self) -> Browser:
        """The browser; use it only in its thread."""
        return self._worker.browser

    def close(self) -> None:
        """End it."""
        with suppress(TimeoutError):
            self.run(self._worker.end, 10)


class PageSession:
    """The pages that a test opens; an error on them fails the test.

    Attributes:
        thread: The browser.
    """

    def __init__(self, thread: BrowserThread) -> None:
        self.thread = thread
        self._contexts: list[Any] = []
        self._errors: list[str] = []
        self._expected: list[str] = []

    def open(self, herdbook: RunningService, path: str = "/", **options: Any) -> Page:
        """Open a page of a service in a fresh profile.

        Args:
            herdbook: The service.
            path: Path of the page.
            options: Options of Playwright's ``new_context``.
        """
        given = {"timezone_id": ZONE, "locale": "en-GB", **options}
        context = self.thread.browser.new_context(base_url=herdbook.address, **given)
        context.set_default_timeout(PATIENCE_MS)
        if given["timezone_id"] == ZONE:  # else the first visit loads itself again
            zone = {"name": "zone", "value": ZONE, "url": herdbook.address}
            context.add_cookies([zone])  # type: ignore[list-item]
        context.add_init_script(VIOLATIONS)
        self._contexts.append(context)
        self._watch(context, urlsplit(herdbook.address).netloc)
        page = context.new_page()
        page.goto(path)
        return page

    def expect_errors(self, *words: str) -> None:
        """Expect errors that contain one of these texts."""
        self._expected += words

    def run(self, test: Callable[[], None]) -> None:
        """Run a test, fail it on unexpected errors, and close its pages."""
        try:
            test()
            assert not self._left(), self._left()
        finally:
            for context in self._contexts:
                context.close()

    def _left(self) -> list[str]:
        """Return the unexpected errors."""
        expected = self._expected
        return [t for t in self._errors if not any(word in t for word in expected)]

    def _watch(self, context: Any, host: str) -> None:
        def console(message: ConsoleMessage) -> None:
            if message.type in {"error", "warning"}:
                self._errors.append(f"console: {message.text} {message.location}")

        def failed(request: Request) -> None:
            # A page that is left aborts its pending requests.
            if "ERR_ABORTED" not in str(request.failure):
                self._errors.append(f"failed: {request.url} {request.failure}")

        def requested(request: Request) -> None:
            if urlsplit(request.url).netloc != host:
                self._errors.append(f"request to another host: {request.url}")

        context.on("console", console)
        context.on("weberror", lambda e: self._errors.append(f"error: {e.error}"))
        context.on("requestfailed", failed)
        context.on("request", requested)


def row(page: Page, model: str) -> Locator:
    """Return the row of a model in the list of models."""
    name = page.get_by_role("link", name=model, exact=True)
    return page.get_by_role("row").filter(has=name)


def events_and_actors(herdbook: RunningService, model: str) -> list[tuple[str, str]]:
    """Return the types and actors of a model's events, oldest first."""
    path = f"/v1/events?stream_prefix=model/local/{model}&limit=1000"
    events = herdbook.get(path)["events"]
    return [(event["type"], event["actor"]) for event in events]


def expect_state(
    page: Page, herdbook: RunningService, model: str, state: str, *, script: bool = True
) -> None:
    """Expect a state on a model's page: live, or after a reload without a script."""
    if not script:
        word = state.replace(" ", "_")
        path = f"/v1/models/{model}"  # of which the log may have nothing yet
        wait_until(lambda: herdbook.http.get(path).json().get("state") == word)
        page.goto(f"/models/{model}")
    expect(page.locator("#head .state")).to_contain_text(state)


def sandbox_world(speed: float = FAST) -> World:
    """Return a world with memory for all models."""
    memory = Settings(vram_bytes=64_000_000_000, max_loaded=20, keep_alive_s=1e6)
    return World(models=MODELS, clock=RealClock(speed=speed), settings=memory)


def pull(page: Page, model: str) -> None:
    """Pull a model by its name from the list of models."""
    page.get_by_label("Pull a model").fill(model)
    page.get_by_role("button", name="Pull model", exact=True).click()
    confirmation = page.get_by_role("main").last
    expect(confirmation).to_contain_text(f"Pull {model}?")
    confirmation.get_by_role("button", name="pull").click()
    page.wait_for_url(f"**/models/{model}*")
