"""Take the screenshots of the dashboard in docs/screens: `make screenshots`.

They show a sandbox with a history of four days (``history.py``), at a time when its
clock is stopped.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import structlog
from history import AGENTS, CODER, record, serve_sandbox
from playwright.async_api import Browser, Page, async_playwright
from support.auto_clock import advancing
from support.manager_fixture import SandboxServer

from herdbook.core import ManagerSettings
from herdbook.events.facts import NodeSettings
from herdbook.service.app import composed
from herdbook.service.auth.tokens import Principal, Role, Token, new_token, sha256_of
from herdbook.service.context import Service
from herdbook.service.operations.operation import Kind, OperationRequest
from herdbook.service.server import serve
from herdbook.service.settings import ServiceSettings

SCREENS = Path(__file__).parent / "screens"
MODELS = Path(tempfile.gettempdir()) / "ollama" / "models"
"""A directory whose disk provides the free space shown."""

LARGEST = 250_000
"""Maximum size of a screenshot, bytes, so that the repository stays small."""

WIDE, TALL, LOW, PHONE = (1280, 800), (1280, 1160), (1280, 410), (360, 740)
FETCHED = "gemma3:27b"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM_FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync")


class Camera:
    """Takes screenshots of a service.

    Args:
        browser: The browser.
        address: The service.
    """

    def __init__(self, browser: Browser, address: str) -> None:
        self._browser = browser
        self._address = address

    @asynccontextmanager
    async def at(
        self, path: str, size: tuple[int, int] = WIDE, **options: Any
    ) -> AsyncIterator[Page]:
        """Open a page in a fresh profile."""
        context = await self._browser.new_context(
            base_url=self._address,
            viewport={"width": size[0], "height": size[1]},
            timezone_id="UTC",
            locale="en-GB",
            reduced_motion="reduce",
            **options,
        )
        await context.add_cookies(
            [{"name": "zone", "value": "UTC", "url": self._address}]
        )
        page = await context.new_page()
        await page.goto(path)
        yield page
        await context.close()

    async def take(self, page: Page, name: str) -> None:
        """Take a screenshot of the visible part of a page."""
        file = SCREENS / f"{name}.png"
        await page.screenshot(path=file, animations="disabled")
        size = file.stat().st_size
        print(f"  {file.name:20} {size:8,} bytes")
        assert size < LARGEST, f"{file.name} is larger than it may be"

    async def capture(self, name: str, path: str, **options: Any) -> None:
        """Take a screenshot of a page once it is connected."""
        async with self.at(path, **options) as page:
            live = page.locator("#connection[data-state=live]")
            if await page.locator("#connection").count():
                await live.wait_for()
            await self.take(page, name)


async def pages(camera: Camera, service: Service) -> None:
    """Take all screenshots of a service without tokens."""
    head = (await service.manager.now()).position
    events = await service.manager.read_log(limit=head, newest_first=True)
    loaded = next(
        e.position
        for e in events.events
        if e.type == "ModelLoaded" and e.actor == AGENTS
    )
    past = next(e.position for e in events.events if e.type == "NodeLost")
    await camera.capture("models", "/")
    await camera.capture("models-dark", "/", color_scheme="dark")
    await camera.capture("models-phone", "/", size=PHONE)
    await camera.capture("model", f"/models/{CODER}", size=TALL)
    await camera.capture("roles", "/roles")
    await camera.capture("usage", "/usage", size=TALL)
    await camera.capture("log", "/log")
    await camera.capture("event", f"/log/{loaded}", size=TALL)
    await camera.capture("server", "/node", size=TALL)
    await camera.capture("compare", "/compare?from=yesterday+17:40", size=TALL)
    await camera.capture("past", f"/?as_of={past}")
    await camera.capture("api", "/api")
    async with camera.at("/node", size=WIDE) as page:
        await page.get_by_label("Free disk space").fill("10GB")
        await page.get_by_role("button", name="Propose models").click()
        await page.get_by_role("dialog").wait_for()
        await camera.take(page, "free")
    async with camera.at("/") as page:
        await page.get_by_label("Pull a model").fill("phi4-mini")
        await page.get_by_role("button", name="Pull model").click()
        await page.get_by_role("heading", name="Pull phi4-mini").wait_for()
        await camera.take(page, "confirm")


async def nodes(camera: Camera, service: Service, url: str) -> None:
    """Take the screenshot of the nodes, with a second server."""
    await service.fleet.add("gpu1", url, NodeSettings(tags={"vram": "24GB"}))
    await camera.capture("nodes", "/nodes", size=LOW)


async def signing_in(camera: Camera) -> None:
    """Take the screenshot of a service that requires a token."""
    async with camera.at("/", size=LOW) as page:
        await page.get_by_label("Token").wait_for()
        await camera.take(page, "login")


@asynccontextmanager
async def service_of(
    server: SandboxServer, log: Path, *tokens: Token
) -> AsyncIterator[tuple[Service, str]]:
    """Serve the history with a running pull and a stopped clock."""
    settings = ServiceSettings(port=0, tokens=tokens)
    async with composed(
        log,
        ollama=server.url,
        clock=server.clock,
        manager_settings=ManagerSettings(reconcile_every_s=None),
        settings=settings,
    ) as (service, application):
        if not tokens:
            async with advancing(server.time):
                await fetch_a_part(server, service)
        async with serve(application, settings) as address:
            yield service, address


async def fetch_a_part(server: SandboxServer, service: Service) -> None:
    """Start to pull a model; return once more than a third of it is there."""
    server.time.stride_s = 0.5
    wanted = OperationRequest(kind=Kind.PULL, model=FETCHED)
    await service.operations.start(wanted, Principal(name="ops", role=Role.OPERATE))
    while True:
        await server.clock.sleep(1)
        states = [work.progress for work in service.manager.under_way()]
        if any(one and one.completed_bytes > one.total_bytes * 0.38 for one in states):
            return


async def take_all(browser: Browser, folder: Path) -> None:
    """Record the history of four days, and take the screenshots."""
    log = folder / "herd.db"
    async with serve_sandbox() as server:
        async with advancing(server.time):
            await record(server, log)
        async with service_of(server, log) as (service, address):
            camera = Camera(browser, address)
            await pages(camera, service)
            async with serve_sandbox() as second:
                await nodes(camera, service, second.url)
        token = Token(name="ann", role=Role.ADMIN, sha256=sha256_of(new_token()))
        async with service_of(server, log, token) as (_, address):
            await signing_in(Camera(browser, address))


async def main() -> int:
    """Take the screenshots."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        print("No Chromium here; to get it: apt-get install chromium")
        return 1
    quiet = structlog.make_filtering_bound_logger(logging.WARNING)
    structlog.configure(wrapper_class=quiet)
    SCREENS.mkdir(exist_ok=True)
    (MODELS / "blobs").mkdir(parents=True, exist_ok=True)
    os.environ["OLLAMA_MODELS"] = str(MODELS)
    with tempfile.TemporaryDirectory() as folder:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(
                executable_path=path, args=list(CHROMIUM_FLAGS)
            )
            await take_all(browser, Path(folder))
            await browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
