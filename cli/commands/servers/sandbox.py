"""The verb ``sandbox``: a simulated Ollama server.

Its first line of output contains only the address.
"""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from herdbook.cli.app import TRY, verb
from herdbook.cli.errors import from_extra
from herdbook.cli.invocation import Invocation
from herdbook.cli.options import Port


class Models(StrEnum):
    """Models that the sandbox starts with."""

    NONE = "none"
    HERD = "herd"
    SOME = "some"


class Profile(StrEnum):
    """Ollama version that the sandbox simulates."""

    CURRENT = "current"
    OLDER = "older"


@verb("sandbox", TRY)
async def sandbox(  # noqa: PLR0913 - the options of a verb
    invocation: Invocation,
    *,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen on.")
    ] = "127.0.0.1",
    port: Port = 0,
    models: Annotated[Models, typer.Option(help="Models to start with.")] = Models.SOME,
    speed: Annotated[
        float,
        typer.Option(
            min=0.001, metavar="FACTOR", help="Simulated seconds per real second."
        ),
    ] = 1.0,
    memory: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="BYTES", help="Memory available for loaded models."
        ),
    ] = None,
    vram: Annotated[
        int,
        typer.Option(
            min=0, metavar="BYTES", help="How much of that memory is on a GPU."
        ),
    ] = 0,
    registry_rate: Annotated[
        float | None,
        typer.Option(
            min=1,
            metavar="BYTES",
            help="Speed of each download connection, in bytes per second.",
        ),
    ] = None,
    profile: Annotated[
        Profile, typer.Option(help="Ollama version to simulate.")
    ] = Profile.CURRENT,
    state: Annotated[
        Path | None,
        typer.Option(
            metavar="DIRECTORY",
            help="Directory that keeps the models between runs.",
        ),
    ] = None,
) -> None:
    """Run a simulated Ollama server until Ctrl-C.

    The first line of output contains only the sandbox's address.
    """
    with from_extra("the sandbox", "sandbox"):
        # Imported late: the sandbox is an optional extra.
        from herdbook.cli.programs.run_sandbox import Options, serve_until_stopped  # noqa: PLC0415
    options = Options(
        host=host,
        port=port,
        models=models.value,
        speed=speed,
        memory=memory,
        vram=vram,
        registry_rate=registry_rate,
        profile=profile.value,
        state=state,
        environment={k: v for k, v in os.environ.items() if k.startswith("OLLAMA_")},
    )
    await serve_until_stopped(invocation, options)
