"""The verb ``gateway``: an Ollama server for clients that records every use.

Its first line of output is the address alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from herdbook.cli.app import SERVE, verb
from herdbook.cli.errors import MissingExtraError
from herdbook.cli.invocation import Invocation


@verb("gateway", SERVE, fast=True)
async def gateway(
    invocation: Invocation,
    *,
    listen: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            help="Address to listen on; other than loopback needs tokens.",
        ),
    ] = "127.0.0.1:11436",
    tokens: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File with tokens; see herdbook token."),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Accept requests for this host name. Repeatable."
        ),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Answer 503 while uses cannot be recorded."),
    ] = False,
    plain: Annotated[
        bool,
        typer.Option(
            "--plain", help="Change no request: no roles, fallbacks or settings."
        ),
    ] = False,
) -> None:
    """Relay requests to Ollama and record which models are used.

    Clients of Ollama, OpenAI and Anthropic work with its address. The first line of
    output is that address alone.
    """
    try:
        # Imported late: the gateway is an optional extra.
        from herdbook.cli.programs import run_gateway  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "the gateway",
            f"is not installed ({error.name} is missing)",
            "Install it: pip install 'herdbook[gateway,service]'",
        ) from error
    options = run_gateway.GatewayOptions(
        listen=listen, hosts=tuple(allow_host or ()), strict=strict, plain=plain
    )
    await run_gateway.serve_until_stopped(invocation, options, tokens)
