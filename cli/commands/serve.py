"""The verb serve: the service with its dashboard, until Ctrl-C.

The first line that it prints is the address and nothing else.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from herdbook.cli.app import SERVE, verb
from herdbook.cli.errors import MissingExtraError
from herdbook.cli.invocation import Invocation


class Sandbox(StrEnum):
    """When a pretend server takes the place of Ollama."""

    NEVER = "never"
    AUTO = "auto"
    ALWAYS = "always"


class LogFormat(StrEnum):
    """How its own log lines look."""

    PLAIN = "plain"
    JSON = "json"


@verb("serve", SERVE)
async def serve(  # noqa: PLR0913 - the options of a verb
    invocation: Invocation,
    *,
    host: Annotated[
        str, typer.Option(help="Where to listen; beyond this machine with tokens only.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="0 takes any that is free.")
    ] = 11435,
    tokens: Annotated[
        Path | None,
        typer.Option(help="The file with the tokens; see herdbook token."),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="A name by which browsers and programs may address it."),
    ] = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Let nobody change anything.")
    ] = False,
    https: Annotated[
        bool, typer.Option("--https", help="A proxy before it speaks HTTPS.")
    ] = False,
    resume_pulls: Annotated[
        bool,
        typer.Option("--resume-pulls", help="Go on with pulls that were interrupted."),
    ] = False,
    sandbox: Annotated[
        Sandbox,
        typer.Option(help="Whether a pretend server takes the place of Ollama."),
    ] = Sandbox.NEVER,
    log_format: Annotated[
        LogFormat, typer.Option(help="How its own log lines look, on stderr.")
    ] = LogFormat.PLAIN,
) -> None:
    """Serve the HTTP API and the dashboard until Ctrl-C.

    The first line that it prints is its address, and nothing else.
    """
    try:
        # Here and not above: it needs a web framework that not everybody has.
        from herdbook.cli import run_service as hosting  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "the service",
            f"is not installed ({error.name} is missing)",
            "To get it: pip install 'herdbook[service]'",
        ) from error
    told = hosting.Hosting(
        host=host,
        port=port,
        tokens=tokens,
        hosts=tuple(allow_host or ()),
        read_only=read_only,
        secure=https,
        resume_pulls=resume_pulls,
        sandbox=sandbox.value,
        log_format=log_format.value,
    )
    await hosting.host(invocation, told)
