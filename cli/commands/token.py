"""The verb ``token``: create, list and revoke tokens of the service.

A token is printed once. The file stores only its hash.
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
    """Role of a token; the service has the same roles."""

    READ = "read"
    OPERATE = "operate"
    ADMIN = "admin"


@verb("token", SERVE)
async def token(
    invocation: Invocation,
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="User of the token, api:NAME in the log."),
    ],
    *,
    file: Annotated[
        Path,
        typer.Option(metavar="FILE", help="File with the hashes, for serve --tokens."),
    ],
    role: Annotated[
        Role, typer.Option(help="Permissions; each role includes those before it.")
    ] = Role.READ,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the token of that name.")
    ] = False,
) -> None:
    """Create a token for the service.

    Prints the token once and stores only its hash. A new file is readable by its
    owner alone.
    """
    try:
        # Imported late: the service is an optional extra.
        from herdbook.service.auth import token_file, tokens  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "the service",
            f"is not installed ({error.name} is missing)",
            "Install it: pip install 'herdbook[service]'",
        ) from error
    wanted = tokens.Role(role.value)
    secret = token_file.add_token(file, name, wanted, replace=replace)
    if invocation.json:
        shape = {"name": name, "role": role.value, "token": secret, "file": str(file)}
        invocation.screen.write_json(shape)
    else:
        invocation.screen.write(secret)
