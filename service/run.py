"""Run the service until SIGTERM or SIGINT, then shut down in order.

The order of a shutdown: refuse new operations, interrupt running ones and record
that, end event streams with their reason, finish open requests, close the log. Closing
the log moves its write-ahead log into the file. A signal during the start cancels it.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TypeAlias

import msgspec

from herdbook.core import Fleet, ModelRegistry
from herdbook.core.concurrency.stopping import Stop, stoppable
from herdbook.core.log.location import LogLocation
from herdbook.core.logging import Logger
from herdbook.core.upkeep.upkeep import UpkeepSettings
from herdbook.service.app import composed
from herdbook.service.context import default_manager_settings
from herdbook.service.metrics import Metrics
from herdbook.service.server import serve
from herdbook.service.settings import ServiceSettings

_log = Logger("herdbook.service")

Companion: TypeAlias = Callable[
    [Fleet, Metrics, Callable[[], None]], AbstractAsyncContextManager[str]
]
"""Serves something else over the same nodes and with the same metrics, and yields its
address. The third argument is called if it stops by itself."""


class RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Arguments of ``run``.

    Attributes:
        log: The log.
        ollama: The address of the node, or of ``local``, in the form of
            ``OLLAMA_HOST``.
        node: Manage only this node; None for all nodes of the log.
        registry: The catalogue of known models.
        settings: Settings of the service.
        resume_pulls: Resume pulls that a crash interrupted.
        follow_node: Accept a server address that differs from the one in the log.
        upkeep: Backups and anchors of the log at intervals.
    """

    log: LogLocation
    ollama: str | None
    node: str | None
    registry: ModelRegistry
    settings: ServiceSettings
    resume_pulls: bool = False
    follow_node: bool = False
    upkeep: UpkeepSettings = UpkeepSettings()


async def run(
    options: RunOptions,
    ready: Callable[[str, str], None],
    companion: Companion | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        options: The log, the server and the settings.
        ready: Called with the addresses of the service and of the companion once both
            accept connections; the second is empty without a companion.
        companion: Served for as long as the service.

    Raises:
        StoreError: The log cannot be opened.
        CallerError: An option is invalid, or the address is not available.
    """
    with stoppable() as stop:
        await _run(options, ready, companion, stop)
    _log.info("stopped")


async def _run(
    options: RunOptions,
    ready: Callable[[str, str], None],
    companion: Companion | None,
    stop: Stop,
) -> None:
    async with (
        composed(
            options.log,
            settings=options.settings,
            ollama=options.ollama,
            node=options.node,
            registry=options.registry,
            manager_settings=default_manager_settings(
                resume_pulls=options.resume_pulls, follow_node=options.follow_node
            ),
            upkeep=options.upkeep,
        ) as (service, application),
        serve(application, options.settings, ended=stop.request) as address,
        (
            companion(service.fleet, service.metrics, stop.request)
            if companion
            else nullcontext("")
        ) as other,
    ):
        # A full garbage collection blocks the event loop. Most objects that exist now
        # are code and never become garbage; exempting them shortens it several times.
        gc.freeze()
        stop.started()
        _log.info("serving", address=address, log=str(options.log))
        ready(address, other)
        await stop.requested.wait()
        _log.info("stopping")
        gc.freeze()  # also what was made since: a collection could take seconds
        await service.stop()
