"""Serve a sandbox until a signal arrives. Imported only where it is needed."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from herdbook.cli.invocation import Invocation
from herdbook.core import CallerError
from herdbook.core.errors.caller import listen_failure
from herdbook.sandbox import Options, World, serve
from herdbook.sandbox.run import world_of

__all__ = ["Options", "serve_until_stopped", "served", "world_of"]


class CannotListenError(CallerError):
    """The sandbox cannot listen on its port."""

    code = "cannot_listen"


async def serve_until_stopped(invocation: Invocation, options: Options) -> None:
    """Print the address, then serve until SIGINT or SIGTERM.

    Raises:
        CannotListenError: The port is in use or not permitted.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with served(options, world_of(options)) as address:
        _write_address(invocation, address)
        await stopped.wait()


@asynccontextmanager
async def served(options: Options, world: World) -> AsyncIterator[str]:
    """Serve a sandbox while the block runs; yield its address.

    Raises:
        CannotListenError: The port is in use or not permitted.
    """
    async with AsyncExitStack() as stack:
        serving = serve(world, host=options.host, port=options.port)
        try:
            address = await stack.enter_async_context(serving)
        except OSError as error:
            raise CannotListenError(
                f"port {options.port} on {options.host}",
                listen_failure(error),
                "Choose another with --port, or --port 0 for any free port",
            ) from error
        yield address


def _write_address(invocation: Invocation, address: str) -> None:
    screen = invocation.screen
    if invocation.json:
        screen.write_json({"address": address}, in_lines=True)
    else:
        screen.write(address)
        screen.stream.flush()
