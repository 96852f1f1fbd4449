"""What the verb serve runs. Imported only where the service is wanted."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec

from herdbook.cli.invocation import PATIENCE_TO_READ_S, Invocation
from herdbook.core import ManagerSettings, ModelManager
from herdbook.service.auth.tokens import gather
from herdbook.service.logging import configure
from herdbook.service.run import RunOptions, run
from herdbook.service.settings import ServiceSettings

BANNER = (
    "This is a sandbox that pretends to be Ollama: no model here is real, and nothing "
    "is fetched."
)
"""What every page says where there is no Ollama."""

PRETEND_RATE = 20e6
"""Bytes per second of each of the sandbox's connections to its registry."""


class Hosting(msgspec.Struct, frozen=True, kw_only=True):
    """What the verb was told.

    Attributes:
        host: Where to listen.
        port: At which port.
        tokens: The file with the tokens.
        hosts: Names by which it may be addressed.
        read_only: Whether nobody may change anything.
        secure: Whether it is reached through HTTPS.
        resume_pulls: Whether interrupted pulls go on at once.
        sandbox: ``never``, ``auto`` or ``always``.
        log_format: ``plain`` or ``json``.
    """

    host: str
    port: int
    tokens: Path | None
    hosts: tuple[str, ...]
    read_only: bool
    secure: bool
    resume_pulls: bool
    sandbox: str
    log_format: str


async def host(invocation: Invocation, hosting: Hosting) -> None:
    """Serve until a signal comes; tell the address first."""
    configure(log_format=hosting.log_format, verbose=invocation.verbose)
    settings = ServiceSettings(
        host=hosting.host,
        port=hosting.port,
        tokens=gather(hosting.tokens, os.environ),
        hosts=hosting.hosts,
        read_only=hosting.read_only,
        secure=hosting.secure,
    )
    options = RunOptions(
        log=invocation.log,
        ollama=invocation.ollama,
        node=invocation.node,
        registry=invocation.registry,
        settings=settings,
        resume_pulls=hosting.resume_pulls,
    )
    nobody = hosting.sandbox == "auto" and not await _answers(invocation)
    if hosting.sandbox == "always" or nobody:
        remark = f"No Ollama answers. {BANNER}" if nobody else BANNER
        async with _pretended(invocation, options) as pretended:
            await run(pretended, partial(_tell, invocation, pretended.log, remark))
    else:
        await run(options, partial(_tell, invocation, options.log, ""))


async def _answers(invocation: Invocation) -> bool:
    """Return whether an Ollama server answers."""
    settings = ManagerSettings(refresh_timeout_s=PATIENCE_TO_READ_S)
    opened = ModelManager.open(":memory:", ollama=invocation.ollama, settings=settings)
    async with opened as manager:
        return (await manager.node_status()).reached


@asynccontextmanager
async def _pretended(
    invocation: Invocation, options: RunOptions
) -> AsyncIterator[RunOptions]:
    """Run a sandbox, with its own log and its own models, kept from run to run."""
    from herdbook.cli.run_sandbox import Options, served  # noqa: PLC0415 - its own extra

    log = invocation.db or invocation.data / "sandbox" / "herd.db"
    log.parent.mkdir(exist_ok=True)
    models = log.with_name(f"{log.name}-sandbox")
    sandbox = Options(registry_rate=PRETEND_RATE, state=models)
    async with served(sandbox) as address:
        yield msgspec.structs.replace(
            options,
            log=log,
            ollama=address,
            node="sandbox" if invocation.node == "local" else invocation.node,
            follow_node=True,
            settings=msgspec.structs.replace(options.settings, banner=BANNER),
        )


def _tell(invocation: Invocation, log: Path, remark: str, address: str) -> None:
    screen = invocation.screen
    if invocation.json:
        screen.write_json({"address": address, "log": str(log)}, in_lines=True)
    else:
        screen.write(address)
        if remark:
            screen.write(remark)
        screen.write(f"The log is {log}. Ctrl-C ends it.")
    screen.stream.flush()
