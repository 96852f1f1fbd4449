"""The verb ``serve``: the HTTP API and the dashboard.

Its first line of output contains only the address.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from herdbook.cli.app import SERVE, verb
from herdbook.cli.errors import UsageError, from_extra
from herdbook.cli.invocation import Invocation
from herdbook.cli.options import AllowedHosts, Port, TokenFile
from herdbook.core.concurrency.stopping import stoppable


class Sandbox(StrEnum):
    """When to use a sandbox in place of Ollama."""

    NEVER = "never"
    AUTO = "auto"
    ALWAYS = "always"


class LogFormat(StrEnum):
    """Format of log lines."""

    PLAIN = "plain"
    JSON = "json"


@verb("serve", SERVE)
async def serve(  # noqa: PLR0913 - the options of a verb
    invocation: Invocation,
    *,
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Address to listen on; tokens are required unless it is a loopback "
            "address.",
        ),
    ] = "127.0.0.1",
    port: Port = 11435,
    tokens: TokenFile = None,
    allow_host: AllowedHosts = None,
    desired: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Never propose deleting the models in this desired set.",
        ),
    ] = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Refuse all changes.")
    ] = False,
    https: Annotated[
        bool,
        typer.Option(
            "--https", help="Use secure cookies, for a service behind an HTTPS proxy."
        ),
    ] = False,
    resume_pulls: Annotated[
        bool,
        typer.Option("--resume-pulls", help="Resume interrupted pulls at startup."),
    ] = False,
    gateway: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Also run a gateway at this address; see herdbook gateway.",
        ),
    ] = None,
    gateway_strict: Annotated[
        bool,
        typer.Option(
            "--gateway-strict",
            help="Gateway: answer 503 while uses cannot be recorded.",
        ),
    ] = False,
    gateway_plain: Annotated[
        bool,
        typer.Option("--gateway-plain", help="Gateway: forward requests unchanged."),
    ] = False,
    gateway_roles: Annotated[
        bool,
        typer.Option("--gateway-roles", help="Gateway: list the roles as models."),
    ] = False,
    sandbox: Annotated[
        Sandbox,
        typer.Option(help="When to use a sandbox instead of Ollama."),
    ] = Sandbox.NEVER,
    backup_every: Annotated[
        str | None,
        typer.Option(
            metavar="INTERVAL", help="Back up the log at this interval, such as 1d."
        ),
    ] = None,
    backup_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIRECTORY", help="Directory for the backups."),
    ] = None,
    backup_keep: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Keep the newest N backups."),
    ] = 7,
    anchor_every: Annotated[
        str | None,
        typer.Option(
            metavar="INTERVAL", help="Anchor the log at this interval, such as 1h."
        ),
    ] = None,
    anchor_file: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Append anchors to a file. Repeatable."),
    ] = None,
    anchor_url: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="Send anchors to a URL (POST). Repeatable."),
    ] = None,
    anchor_to: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help="Send anchors to another Herdbook service, with the token in "
            "HERDBOOK_ANCHOR_TOKEN. Repeatable.",
        ),
    ] = None,
    anchor_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Sign anchors with this private key."),
    ] = None,
    log_format: Annotated[
        LogFormat, typer.Option(help="Format of log lines on stderr.")
    ] = LogFormat.PLAIN,
) -> None:
    """Serve the HTTP API and the dashboard until Ctrl-C.

    The first line of output contains only the service's address.
    """
    if gateway is None and (gateway_strict or gateway_plain or gateway_roles):
        raise UsageError(
            "--gateway-strict, --gateway-plain and --gateway-roles",
            "need a gateway",
            "Add --gateway HOST:PORT",
        )
    # Also around the imports, which take a second: a signal then ends the start.
    with stoppable():
        with from_extra("the service", "service"):
            # Imported late: the service is an optional extra.
            from herdbook.cli.programs import run_service  # noqa: PLC0415
        options = run_service.ServeOptions(
            host=host,
            port=port,
            tokens=tokens,
            hosts=tuple(allow_host or ()),
            desired=desired,
            read_only=read_only,
            secure=https,
            resume_pulls=resume_pulls,
            gateway=gateway,
            gateway_strict=gateway_strict,
            gateway_plain=gateway_plain,
            gateway_roles=gateway_roles,
            sandbox=sandbox.value,
            log_format=log_format.value,
            upkeep=run_service.UpkeepOptions(
                backup_every=backup_every,
                backup_dir=backup_dir,
                backup_keep=backup_keep,
                anchor_every=anchor_every,
                anchor_files=tuple(anchor_file or ()),
                anchor_urls=tuple(anchor_url or ()),
                anchor_herdbooks=tuple(anchor_to or ()),
                anchor_key=anchor_key,
            ),
        )
        await run_service.serve(invocation, options)
