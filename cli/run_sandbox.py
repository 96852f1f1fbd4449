"""Serve a sandbox until a signal comes. Imported only where one is wanted."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from herdbook.cli.invocation import Invocation
from herdbook.core import HerdbookError
from herdbook.sandbox import Options, serve
from herdbook.sandbox.run import world_of

__all__ = ["Options", "serve_until_stopped", "served"]


class CannotListenError(HerdbookError):
    """The sandbox cannot have the port that it was told to."""

    code = "cannot_listen"


async def serve_until_stopped(invocation: Invocation, options: Options) -> None:
    """Serve, with the address on the first line, until SIGINT or SIGTERM.

    Raises:
        CannotListenError: Another program has the port, or it is not allowed.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with served(options) as address:
        _tell(invocation, address)
        await stopped.wait()


@asynccontextmanager
async def served(options: Options) -> AsyncIterator[str]:
    """Serve a sandbox while the block runs; give its address.

    Raises:
        CannotListenError: Another program has the port, or it is not allowed.
    """
    async with AsyncExitStack() as stack:
        serving = serve(world_of(options), host=options.host, port=options.port)
        try:
            address = await stack.enter_async_context(serving)
        except OSError as error:
            raise CannotListenError(
                f"port {options.port} of {options.host}",
                f"cannot be listened on: {error.strerror}",
                "Take another one, or 0 for any that is free",
            ) from error
        yield address


def _tell(invocation: Invocation, address: str) -> None:
    screen = invocation.screen
    if invocation.json:
        screen.write_json({"address": address}, in_lines=True)
    else:
        screen.write(address)
        screen.stream.flush()
