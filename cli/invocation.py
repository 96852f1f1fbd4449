"""One call of the command: its global options and the nodes it opens."""

from __future__ import annotations

import getpass
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import platformdirs
import typer

from herdbook.cli.errors import NoHomeError
from herdbook.cli.output import Screen, clean, folded
from herdbook.core import (
    Fleet,
    ManagerSettings,
    ModelManager,
    ModelRegistry,
    NodeAddressError,
    base_url,
)
from herdbook.core.log.location import LogLocation, log_location
from herdbook.presentation.times import Now

READ_TIMEOUT_S = 2.0
"""Seconds that a reading verb waits for the server."""

CHANGE_TIMEOUT_S = 5.0
"""Seconds that a changing verb waits for the first refresh."""


class Invocation:
    """The global options of one call, with their defaults from the environment.

    Attributes:
        db: The log, as given; None for the file in the user data directory.
        ollama: Address of the server; None uses OLLAMA_HOST.
        node: Name of the only node to use; None for all nodes of the log.
        catalogue: The user's own catalogue; None if there is none.
        json: Whether to print JSON.
        verbose: Whether to show causes and positions.
        verb: The running verb.
        now: The current time, the same for the whole call.
        screen: Writes the output.
        position: The last event of the log at the end of the verb.
    """

    def __init__(self, *, now: Now | None = None, screen: Screen | None = None) -> None:
        self.db = os.environ.get("HERDBOOK_DB") or None
        self.ollama: str | None = None
        self.node: str | None = os.environ.get("HERDBOOK_NODE") or None
        self.catalogue = _own_catalogue()
        self.json = False
        self.verbose = False
        self.verb = "herdbook"
        self.now = now or Now.local()
        self.screen = screen or Screen()
        self.position: int | None = None

    @property
    def url(self) -> str:
        """The normalized address of the server.

        Raises:
            InvalidAddressError: The address is not valid.
        """
        return base_url(self.ollama or os.environ.get("OLLAMA_HOST"))

    @property
    def attended(self) -> bool:
        """Whether a person can answer a question."""
        return self.screen.interactive and sys.stdin.isatty() and not self.json

    def agreed(self, question: str) -> bool:
        """Ask a yes/no question; Ctrl-C and end of input mean no."""
        # asyncio's handler would only run after the blocking prompt returns.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return typer.confirm(folded(question, sys.stdout))
        except typer.Abort:
            return False
        finally:
            signal.signal(signal.SIGINT, before)

    @property
    def log(self) -> LogLocation:
        """The log; creates the user data directory if it is the default.

        Raises:
            CallerError: The address of the database is not valid.
        """
        return self.data / "herd.db" if self.db is None else log_location(self.db)

    @property
    def data(self) -> Path:
        """The user data directory, created if missing.

        Raises:
            NoHomeError: The directory cannot be created or read.
        """
        return self.data_or("Choose a log file with --db PATH or HERDBOOK_DB")

    @staticmethod
    def data_or(remedy: str) -> Path:
        """Return the user data directory, created if missing.

        Args:
            remedy: What to do if it cannot be used.

        Raises:
            NoHomeError: The directory cannot be created or read.
        """
        try:
            path = platformdirs.user_data_path("herdbook", ensure_exists=True)
            next(path.iterdir(), None)
        except OSError as error:
            # The error may name only the first directory above it that is missing.
            raise NoHomeError(
                f"the data directory {platformdirs.user_data_path('herdbook')}",
                f"cannot be created or read: {error.strerror}",
                remedy,
            ) from error
        return path

    @property
    def registry(self) -> ModelRegistry:
        """The shipped catalogue, with the user's own on top.

        Raises:
            InvalidCatalogueError: The user's catalogue is not valid.
        """
        shipped = ModelRegistry()
        return shipped.with_catalogue(self.catalogue) if self.catalogue else shipped

    @asynccontextmanager
    async def reading(
        self, *, refresh: bool = True, warns: bool = True, log_only: bool = False
    ) -> AsyncIterator[Fleet]:
        """Open the nodes to read; refresh those first whose server answers in time.

        Args:
            refresh: Whether to refresh.
            warns: Whether to print on stderr why a refresh failed; False for verbs
                that show it in their output.
            log_only: Whether the answer is in the log, so that another address of the
                server than the log's is only a warning.

        Raises:
            NodeAddressError: The log has another address for the only node.
        """
        settings = ManagerSettings(refresh_timeout_s=READ_TIMEOUT_S)
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            try:
                fleet = await enter(self._open(settings, refresh=refresh, reading=True))
            except NodeAddressError as error:
                if not log_only:
                    raise
                warn(f"{error}. The server was not asked")
                refresh = False
                fleet = await enter(self._open(settings, refresh=False, reading=True))
            for problem in failed_refreshes(fleet) if refresh and warns else ():
                warn(problem)
            yield fleet

    @asynccontextmanager
    async def recording(self) -> AsyncIterator[Fleet]:
        """Open the nodes to record what the verb asks the servers, which it does."""
        settings = ManagerSettings(refresh_timeout_s=READ_TIMEOUT_S)
        async with self._open(settings, refresh=False) as fleet:
            yield fleet

    @asynccontextmanager
    async def acting(self) -> AsyncIterator[Fleet]:
        """Open the nodes to change something; the only server must answer.

        Of several, the one that is chosen must answer: see ``answering``.

        Raises:
            OllamaError: The only server does not answer.
        """
        settings = ManagerSettings(refresh_timeout_s=CHANGE_TIMEOUT_S)
        async with self._open(settings, refresh=True) as fleet:
            if not fleet.is_several:
                await answering(fleet.home)
            yield fleet

    @asynccontextmanager
    async def managing_nodes(self) -> AsyncIterator[Fleet]:
        """Open all nodes to add, change or remove one, without asking a server."""
        settings = ManagerSettings(refresh_timeout_s=READ_TIMEOUT_S)
        async with self._open(settings, refresh=False, all_nodes=True) as fleet:
            yield fleet

    @asynccontextmanager
    async def _open(
        self,
        settings: ManagerSettings,
        *,
        refresh: bool,
        reading: bool = False,
        all_nodes: bool = False,
    ) -> AsyncIterator[Fleet]:
        opened = Fleet.open(
            self.log,
            ollama=None if all_nodes else self.ollama,
            node=None if all_nodes else self.node,
            actor=actor(),
            registry=self.registry,
            settings=settings,
            refresh=refresh,
            reading=reading,
        )
        async with opened as fleet:
            try:
                yield fleet
            finally:
                if self.verbose:
                    await fleet.nodes()  # catches up with the log
                    self.position = fleet.log.live.views.position


def warn(text: str) -> None:
    """Write a warning on stderr."""
    line = clean(f"herdbook: warning: {text}")
    sys.stderr.write(f"{folded(line, sys.stderr)}\n")


def failed_refreshes(fleet: Fleet) -> list[str]:
    """Return why servers were not refreshed, a line for each; empty if all were."""
    failed = {
        node: fleet.problem(node) or fleet.manager(node).refresh_error
        for node in fleet.all_names
    }
    return [
        f"{node}: {error}" if fleet.is_several else str(error)
        for node, error in failed.items()
        if error is not None
    ]


async def answering(manager: ModelManager) -> ModelManager:
    """Return a manager whose server answers.

    Raises:
        OllamaError: It does not answer.
    """
    if not (await manager.node_status()).reached:
        await manager.refresh()  # raises the reason
    return manager


def _own_catalogue() -> Path | None:
    named = os.environ.get("HERDBOOK_CATALOGUE")
    if named:
        return Path(named)
    usual = platformdirs.user_config_path("herdbook") / "catalogue.toml"
    # Unlike Path.exists, this returns False where the home cannot be read.
    return usual if os.path.exists(usual) else None  # noqa: PTH110


def actor() -> str:
    """Return the actor of this process: ``cli:<user>``."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in containers
        user = "unknown"
    printable = "".join(c for c in user if c.isprintable())
    return f"cli:{printable[:190] or 'unknown'}"
