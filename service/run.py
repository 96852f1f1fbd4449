"""The life of the process: start, serve until told to stop, stop in order.

On SIGTERM or SIGINT nothing more is begun; work under way is interrupted, and that
is recorded; streams are told why they end; requests under way get their answers;
then the log is closed, which moves what is in its write-ahead log into the file.
"""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Callable
from pathlib import Path

import msgspec

from herdbook.core import ModelRegistry
from herdbook.core.logging import Logger
from herdbook.service.app import composed
from herdbook.service.context import default_manager_settings
from herdbook.service.server import serve
from herdbook.service.settings import ServiceSettings

_log = Logger("herdbook.service")


class RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a service runs on.

    Attributes:
        log: The log's file.
        ollama: The Ollama server, as ``OLLAMA_HOST`` takes it.
        node: Our name for it.
        registry: What is known of models.
        settings: How to listen, and whom to let in.
        resume_pulls: Whether pulls that a crash interrupted go on at once.
        follow_node: Whether the server may have another address than the log has.
    """

    log: Path
    ollama: str | None
    node: str
    registry: ModelRegistry
    settings: ServiceSettings
    resume_pulls: bool = False
    follow_node: bool = False


async def run(options: RunOptions, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        options: What to run on.
        ready: Is told the address once it answers there.

    Raises:
        StoreError: The log cannot be opened.
        CallerError: It cannot listen like that.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
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
        ) as (service, application),
        serve(application, options.settings, ended=stopped.set) as address,
    ):
        # A full garbage collection holds the event loop. With what was made so far it
        # takes several times as long, and finds nothing: most of it is code.
        gc.freeze()
        _log.info("serving", address=address, log=str(options.log))
        ready(address)
        await stopped.wait()
        _log.info("stopping")
        await service.stop()
    _log.info("stopped")
