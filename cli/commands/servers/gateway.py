"""The verb ``gateway``: an Ollama server for clients that records every use.

Its first line of output contains only the address.
"""

from __future__ import annotations

from typing import Annotated

import typer

from herdbook.cli.app import SERVE, verb
from herdbook.cli.errors import from_extra
from herdbook.cli.invocation import Invocation
from herdbook.cli.options import AllowedHosts, TokenFile
from herdbook.core.concurrency.stopping import stoppable


@verb("gateway", SERVE, fast=True)
async def gateway(
    invocation: Invocation,
    *,
    listen: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            help="Address to listen on; tokens are required unless it is a loopback "
            "address.",
        ),
    ] = "127.0.0.1:11436",
    tokens: TokenFile = None,
    allow_host: AllowedHosts = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Answer 503 while uses cannot be recorded."),
    ] = False,
    plain: Annotated[
        bool,
        typer.Option(
            "--plain",
            help="Forward requests unchanged: no roles, fallbacks or settings.",
        ),
    ] = False,
    roles: Annotated[
        bool,
        typer.Option("--roles", help="List the roles as models, such as role:coding."),
    ] = False,
    metrics: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT", help="Serve metrics for Prometheus on this address."
        ),
    ] = "",
) -> None:
    """Forward requests to Ollama and record model use.

    Works with Ollama, OpenAI and Anthropic clients. The first line of output contains
    only the gateway's address.
    """
    # Also around the imports, which take a second: a signal then ends the start.
    with stoppable():
        with from_extra("the gateway", "gateway,service"):
            # Imported late: the gateway is an optional extra.
            from herdbook.cli.programs import run_gateway  # noqa: PLC0415
        options = run_gateway.GatewayOptions(
            listen=listen,
            hosts=tuple(allow_host or ()),
            strict=strict,
            plain=plain,
            roles=roles,
            metrics=metrics,
        )
        await run_gateway.serve_until_stopped(invocation, options, tokens)
