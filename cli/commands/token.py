"""The verb token: makes a token for the service, and keeps its hash in a file.

The token is written once, to standard output, and is nowhere else.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from herdbook.cli.app import SERVE, verb
from herdbook.cli.errors import MissingExtraError
from herdbook.cli.invocation import Invocation


class Role(StrEnum):
    """What a token allows; the service has the same."""

    READ = "read"
    OPERATE = "operate"
    ADMIN = "admin"


@verb("token", SERVE)
async def token(
    invocation: Invocation,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Whose it is: the log has api:NAME.")
    ],
    *,
    file: Annotated[
        Path, typer.Option(help="Where its hash is kept, for serve to read.")
    ],
    role: Annotated[
        Role, typer.Option(help="What it allows; each role what those before it do.")
    ] = Role.READ,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put it in place of one of that name.")
    ] = False,
) -> None:
    """Make a token for the service, and keep its hash in a file.

    The token is printed once and kept nowhere. The file is made for its owner alone;
    what is in it stays.
    """
    try:
        # Here and not above: the service is not installed everywhere.
        from herdbook.service.auth import token_file, tokens  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "the service",
            f"is not installed ({error.name} is missing)",
            "To get it: pip install 'herdbook[service]'",
        ) from error
    wanted = tokens.Role(role.value)
    secret = token_file.add_token(file, name, wanted, replace=replace)
    if invocation.json:
        told = {"name": name, "role": role.value, "token": secret, "file": str(file)}
        invocation.screen.write_json(told)
    else:
        invocation.screen.write(secret)
