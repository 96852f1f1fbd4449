"""The verb sandbox: a pretend Ollama server, to try things against.

The first line that it prints is the address and nothing else.
"""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from herdbook.cli.app import TRY, verb
from herdbook.cli.errors import MissingExtraError
from herdbook.cli.invocation import Invocation


class Models(StrEnum):
    """What the pretend server holds at first."""

    NONE = "none"
    HERD = "herd"
    SOME = "some"


class Profile(StrEnum):
    """Which version it pretends to be."""

    CURRENT = "current"
    OLDER = "older"


@verb("sandbox", TRY)
async def sandbox(  # noqa: PLR0913 - the options of a verb
    invocation: Invocation,
    *,
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="0 takes any that is free.")
    ] = 0,
    models: Annotated[
        Models, typer.Option(help="What it holds at first.")
    ] = Models.SOME,
    speed: Annotated[
        float, typer.Option(min=0.001, help="Pretend seconds in a second.")
    ] = 1.0,
    memory: Annotated[
        int | None, typer.Option(min=0, help="Memory of all runners, bytes.")
    ] = None,
    vram: Annotated[int, typer.Option(min=0, help="That on a GPU, bytes.")] = 0,
    registry_rate: Annotated[
        float | None, typer.Option(min=1, help="Bytes per second of a download.")
    ] = None,
    profile: Annotated[
        Profile, typer.Option(help="Which version it pretends to be.")
    ] = Profile.CURRENT,
    state: Annotated[
        Path | None, typer.Option(help="A folder that keeps its models.")
    ] = None,
) -> None:
    """Run a pretend Ollama server until Ctrl-C.

    The first line that it prints is its address, and nothing else.
    """
    try:
        # Here and not above: it needs a web server that not everybody has.
        from herdbook.cli.run_sandbox import Options, serve_until_stopped  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "the sandbox",
            f"is not installed ({error.name} is missing)",
            "To get it: pip install 'herdbook[sandbox]'",
        ) from error
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
