"""One call of the command: what was asked globally, and the manager that it opens."""

from __future__ import annotations

import getpass
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import platformdirs
import typer

from herdbook.cli.errors import NoHomeError
from herdbook.cli.output import Screen
from herdbook.core import ManagerSettings, ModelManager, ModelRegistry, base_url
from herdbook.presentation.times import Now

PATIENCE_TO_READ_S = 2.0
"""Seconds that a verb that only reads waits for the server."""

PATIENCE_TO_ACT_S = 5.0
"""Seconds that a verb that changes something waits for a look at the server."""


class Invocation:
    """The global options of one call, and what they lead to.

    Attributes:
        db: The log's file; None for the user's own.
        ollama: The server; None leaves it to OLLAMA_HOST.
        node: Our name for the server.
        catalogue: The user's own catalogue of known models; None if there is none.
        json: Whether programs read the answer.
        verbose: Whether causes and positions are told.
        verb: The verb that runs.
        now: The present, the same for everything that one call shows.
        screen: Where answers go.
        position: The last event of the log when the verb was done with it.
    """

    def __init__(self, *, now: Now | None = None, screen: Screen | None = None) -> None:
        db = os.environ.get("HERDBOOK_DB")
        self.db = Path(db) if db else None
        self.ollama: str | None = None
        self.node = os.environ.get("HERDBOOK_NODE") or "local"
        self.catalogue = _own_catalogue()
        self.json = False
        self.verbose = False
        self.verb = "herdbook"
        self.now = now or Now.here()
        self.screen = screen or Screen()
        self.position: int | None = None

    @property
    def url(self) -> str:
        """The server's address, as it is understood.

        Raises:
            InvalidAddressError: It is no address.
        """
        return base_url(self.ollama or os.environ.get("OLLAMA_HOST"))

    @property
    def attended(self) -> bool:
        """Whether somebody is there to be asked."""
        return self.screen.interactive and sys.stdin.isatty() and not self.json

    def agreed(self, question: str) -> bool:
        """Ask the person at the terminal; Ctrl-C and the end of input are a no."""
        # The loop's own handler would wait for the answer first.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return typer.confirm(question)
        except typer.Abort:
            return False
        finally:
            signal.signal(signal.SIGINT, before)

    @property
    def log(self) -> Path:
        """The log's file; the directory of the user's own is made."""
        return self.data / "herd.db" if self.db is None else self.db

    @property
    def data(self) -> Path:
        """The directory of the user's own data, made if it is not there.

        Raises:
            NoHomeError: It cannot be made or entered.
        """
        try:
            path = platformdirs.user_data_path("herdbook", ensure_exists=True)
            next(path.iterdir(), None)
        except OSError as error:
            raise NoHomeError(
                str(error.filename or "the home directory"),
                f"cannot be used: {error.strerror}",
                "Give permission for it, or name a log: --db PATH",
            ) from error
        return path

    @property
    def registry(self) -> ModelRegistry:
        """What is known of models: what is shipped, the user's own on top.

        Raises:
            InvalidCatalogueError: The user's own cannot be used.
        """
        shipped = ModelRegistry()
        return shipped.with_catalogue(self.catalogue) if self.catalogue else shipped

    @asynccontextmanager
    async def reading(self, *, look: bool = True) -> AsyncIterator[ModelManager]:
        """Open the manager to read: a look at the server first, if it answers soon."""
        settings = ManagerSettings(refresh_timeout_s=PATIENCE_TO_READ_S)
        async with self._open(settings, look=look) as herd:
            yield herd

    @asynccontextmanager
    async def acting(self) -> AsyncIterator[ModelManager]:
        """Open the manager to change something: the server must answer.

        Raises:
            OllamaError: It does not.
        """
        settings = ManagerSettings(refresh_timeout_s=PATIENCE_TO_ACT_S)
        async with self._open(settings, look=True) as herd:
            if not (await herd.node_status()).reached:
                await herd.refresh()  # says what is wrong
            yield herd

    @asynccontextmanager
    async def _open(
        self, settings: ManagerSettings, *, look: bool
    ) -> AsyncIterator[ModelManager]:
        opened = ModelManager.open(
            self.log,
            ollama=self.ollama,
            node=self.node,
            actor=actor(),
            registry=self.registry,
            settings=settings,
            refresh=look,
        )
        async with opened as herd:
            try:
                yield herd
            finally:
                if self.verbose:
                    self.position = (await herd.now()).position


def _own_catalogue() -> Path | None:
    named = os.environ.get("HERDBOOK_CATALOGUE")
    if named:
        return Path(named)
    usual = platformdirs.user_config_path("herdbook") / "catalogue.toml"
    # Unlike Path.exists, this is False where the home cannot be read.
    return usual if os.path.exists(usual) else None  # noqa: PTH110


def actor() -> str:
    """Return who asks: ``cli:<user>``."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in containers
        user = "unknown"
    printable = "".join(c for c in user if c.isprintable())
    return f"cli:{printable[:190] or 'unknown'}"
