"""Run the service for ``serve``. Imported only where it is needed."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec

from herdbook.cli.errors import UsageError, from_extra
from herdbook.cli.invocation import READ_TIMEOUT_S, Invocation
from herdbook.core import ManagerSettings, ModelManager
from herdbook.core.desired import desired
from herdbook.core.log.location import LogLocation
from herdbook.core.log.storage import log_exists
from herdbook.core.upkeep.anchors import AnchorSchedule
from herdbook.core.upkeep.backups import BackupSchedule
from herdbook.core.upkeep.upkeep import UpkeepSettings
from herdbook.presentation.times import parse_duration
from herdbook.service.auth.tokens import load_tokens, take_from_environment
from herdbook.service.logging import configure
from herdbook.service.run import Companion, RunOptions, run
from herdbook.service.settings import ServiceSettings

BANNER = (
    "Sandbox: a simulated Ollama server. The models are not real and nothing is "
    "downloaded. Events by demo:… are sample history."
)
"""Shown on every page while the sandbox replaces Ollama."""

SANDBOX_RATE = 20e6
"""Bytes per second of each simulated connection to the registry."""


ANCHOR_TOKEN = "HERDBOOK_ANCHOR_TOKEN"  # noqa: S105 - a name
"""The variable with the token for the services that record anchors. It is removed, so
that no process that the service starts has it."""


class UpkeepOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of ``serve`` for backups and anchors.

    Attributes:
        backup_every: Interval of the backups as text; None for none.
        backup_dir: Directory of the backups.
        backup_keep: How many are kept.
        anchor_every: Interval of the anchors as text; None for none.
        anchor_files: Files that anchors are appended to.
        anchor_urls: URLs that anchors are sent to.
        anchor_herdbooks: Services of other Herdbooks that anchors are sent to.
        anchor_key: Private key that signs anchors.
    """

    backup_every: str | None = None
    backup_dir: Path | None = None
    backup_keep: int = 7
    anchor_every: str | None = None
    anchor_files: tuple[Path, ...] = ()
    anchor_urls: tuple[str, ...] = ()
    anchor_herdbooks: tuple[str, ...] = ()
    anchor_key: Path | None = None

    def settings(self) -> UpkeepSettings:
        """Return the settings of the service.

        Raises:
            UsageError: An option needs another one.
            CallerError: An interval cannot be read.
        """
        return UpkeepSettings(backups=self._backups(), anchors=self._anchors())

    def _backups(self) -> BackupSchedule | None:
        if self.backup_every is None and self.backup_dir is None:
            return None
        if self.backup_every is None or self.backup_dir is None:
            raise UsageError(
                "backups",
                "need an interval and a directory",
                "Add both: --backup-every 1d --backup-dir DIRECTORY",
            )
        return BackupSchedule(
            directory=self.backup_dir,
            every_s=parse_duration(self.backup_every),
            keep=self.backup_keep,
        )

    def _anchors(self) -> AnchorSchedule | None:
        token = os.environ.pop(ANCHOR_TOKEN, "")
        has_destination = bool(
            self.anchor_files or self.anchor_urls or self.anchor_herdbooks
        )
        if self.anchor_every is None and not has_destination:
            return None
        if self.anchor_every is None or not has_destination:
            raise UsageError(
                "anchors",
                "need an interval and a destination",
                "Add both: "
                "--anchor-every 1h, and --anchor-file FILE or --anchor-url URL",
            )
        schedule = AnchorSchedule(
            every_s=parse_duration(self.anchor_every),
            files=self.anchor_files,
            urls=self.anchor_urls,
            herdbooks=self.anchor_herdbooks,
            token=token,
            key=self.anchor_key,
        )
        with from_extra("the signature package", "proof"):
            schedule.check()
        return schedule


class ServeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of ``serve``.

    Attributes:
        host: Address to listen on.
        port: Port to listen on.
        tokens: File with the token hashes.
        hosts: Accepted host names.
        desired: File of a desired set whose models are kept.
        read_only: Whether to refuse every change.
        secure: Whether clients connect through HTTPS.
        resume_pulls: Whether to resume interrupted pulls.
        gateway: Address of the gateway, ``HOST:PORT``; None for none.
        gateway_strict: Whether the gateway answers 503 while uses cannot be recorded.
        gateway_plain: Whether the gateway changes no request.
        gateway_roles: Whether the gateway lists the roles as models.
        sandbox: When to replace Ollama: ``never``, ``auto`` or ``always``.
        log_format: Format of log lines, ``plain`` or ``json``.
        upkeep: Backups and anchors at intervals.
    """

    host: str
    port: int
    tokens: Path | None
    hosts: tuple[str, ...]
    desired: Path | None
    read_only: bool
    secure: bool
    resume_pulls: bool
    gateway: str | None
    gateway_strict: bool
    gateway_plain: bool
    gateway_roles: bool
    sandbox: str
    log_format: str
    upkeep: UpkeepOptions = UpkeepOptions()


async def serve(invocation: Invocation, given: ServeOptions) -> None:
    """Print the address, then serve until a signal arrives."""
    configure(log_format=given.log_format, verbose=invocation.verbose)
    tokens = take_from_environment(os.environ)
    # An invalid file fails before anything starts.
    load_tokens(given.tokens, tokens)
    if given.desired is not None:
        desired.read(given.desired)
    settings = ServiceSettings(
        host=given.host,
        port=given.port,
        tokens=tokens,
        token_file=given.tokens,
        hosts=given.hosts,
        desired=given.desired,
        read_only=given.read_only,
        secure=given.secure,
    )
    options = RunOptions(
        log=invocation.log,
        ollama=invocation.ollama,
        node=invocation.node,
        registry=invocation.registry,
        settings=settings,
        resume_pulls=given.resume_pulls,
        upkeep=given.upkeep.settings(),
    )
    missing = given.sandbox == "auto" and not await _answers(invocation)
    if given.sandbox == "always" or missing:
        remark = f"No Ollama server answers. {BANNER}" if missing else BANNER
        async with _sandboxed(invocation, options) as sandboxed:
            await _run(invocation, given, sandboxed, remark)
    else:
        await _run(invocation, given, options, "")


async def _run(
    invocation: Invocation, given: ServeOptions, options: RunOptions, remark: str
) -> None:
    """Run the service, and the gateway if it was requested."""
    ready = partial(_write_start, invocation, options.log, remark)
    await run(options, ready, _gateway(given, options) if given.gateway else None)


def _gateway(given: ServeOptions, options: RunOptions) -> Companion:
    """Return what serves the gateway next to the service.

    Raises:
        MissingExtraError: The gateway is not installed.
        CallerError: Its address is not valid.
    """
    with from_extra("the gateway", "gateway"):
        # Imported late: the gateway is an extra of its own.
        from herdbook.cli.programs import run_gateway  # noqa: PLC0415
    assert given.gateway is not None
    wanted = run_gateway.GatewayOptions(
        listen=given.gateway,
        hosts=given.hosts,
        strict=given.gateway_strict,
        plain=given.gateway_plain,
        roles=given.gateway_roles,
    )
    authenticate = run_gateway.authenticator(
        options.settings.tokens, options.settings.token_file
    )
    return run_gateway.companion(wanted, authenticate)


async def _answers(invocation: Invocation) -> bool:
    """Return whether an Ollama server answers."""
    settings = ManagerSettings(refresh_timeout_s=READ_TIMEOUT_S)
    opened = ModelManager.open(":memory:", ollama=invocation.ollama, settings=settings)
    async with opened as manager:
        return (await manager.node_status()).reached


@asynccontextmanager
async def _sandboxed(
    invocation: Invocation, options: RunOptions
) -> AsyncIterator[RunOptions]:
    """Serve a sandbox whose log and models persist between runs."""
    # Imported late: uvicorn for the sandbox is an extra of its own.
    from herdbook.cli.programs import sample_history  # noqa: PLC0415
    from herdbook.cli.programs.run_sandbox import Options, served, world_of  # noqa: PLC0415

    is_named = invocation.db is not None
    log = invocation.log if is_named else invocation.data / "sandbox" / "herd.db"
    if isinstance(log, Path):
        log.parent.mkdir(exist_ok=True)
        models = log.with_name(f"{log.name}-sandbox")
    else:
        models = invocation.data / f"{log.schema}-sandbox"
    sandbox = Options(registry_rate=SANDBOX_RATE, state=models)
    node = invocation.node or "sandbox"
    # Only in the default demonstration log, and only when that is new: a log that the
    # user named with --db holds nothing but what the user did.
    is_old = is_named or await log_exists(log) or models.exists()
    clock = None if is_old else sample_history.clock()
    world = world_of(sandbox, clock)
    async with served(sandbox, world) as address:
        if clock is not None:
            await sample_history.record(world, clock, log, ollama=address, node=node)
        yield msgspec.structs.replace(
            options,
            log=log,
            ollama=address,
            node=node,
            follow_node=True,
            settings=msgspec.structs.replace(options.settings, banner=BANNER),
        )


def _write_start(
    invocation: Invocation, log: LogLocation, remark: str, address: str, gateway: str
) -> None:
    screen = invocation.screen
    if invocation.json:
        addresses = {"address": address} | ({"gateway": gateway} if gateway else {})
        screen.write_json({**addresses, "log": str(log)}, in_lines=True)
    else:
        screen.write(address)
        if gateway:
            screen.write(f"Gateway: {gateway}")
        if remark:
            screen.write(remark)
        screen.write(f"Log: {log}. Stop with Ctrl-C.")
    screen.stream.flush()
