"""The verb ``token``: create, list and revoke tokens of the service.

A token is printed once. The file stores only its hash.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from herdbook.cli.app import SERVE, verb
from herdbook.cli.argument_errors import OTHER_WORDS
from herdbook.cli.errors import UsageError, from_extra
from herdbook.cli.invocation import Invocation
from herdbook.cli.output import Column, Piece, Row
from herdbook.core.errors.suggestions import did_you_mean
from herdbook.presentation.wording import NOTHING

if TYPE_CHECKING:
    from herdbook.service.auth.tokens import Token

CREATE, LIST, REVOKE = "create", "list", "revoke"
"""Words that are not names of new tokens."""


class Role(StrEnum):
    """Role of a token; the service has the same roles."""

    READ = "read"
    OPERATE = "operate"
    ADMIN = "admin"


@verb("token", SERVE)
async def token(  # noqa: PLR0913 - the options of a verb
    invocation: Invocation,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|create|list|revoke",
            help="Name of the new token (api:NAME in the log), or an action.",
        ),
    ],
    named: Annotated[
        str, typer.Argument(metavar="[NAME]", help="Token to create or revoke.")
    ] = "",
    *,
    file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File with the hashes, for serve --tokens [default tokens.toml in the "
            "user data directory].",
        ),
    ] = None,
    role: Annotated[
        Role, typer.Option(help="Permissions; each role includes the ones before it.")
    ] = Role.READ,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the token of that name.")
    ] = False,
    models: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Gateway: allow only matching models, such as 'llama3*'. Repeatable.",
        ),
    ] = None,
    max_requests: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Gateway: at most N requests at once."),
    ] = None,
    tokens_per_day: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Gateway: at most N tokens a day (UTC)."),
    ] = None,
) -> None:
    """Create, list or revoke tokens of the service.

    A new token is printed once, and only its hash is stored. A new file is readable
    only by its owner. A running service picks up changes within a second.
    """
    with from_extra("the service", "service"):
        # Imported late: the service is an optional extra.
        from herdbook.service.auth import token_file_editor, tokens  # noqa: PLC0415
    if file is None:
        file = invocation.data_or("Choose a file with --file") / "tokens.toml"
    if name == LIST and not named:
        _list(invocation, tokens.read_tokens(file))
        return
    if name in (CREATE, REVOKE) and not named:
        raise UsageError(
            f"token {name}", "needs a name", f"Usage: herdbook token {name} NAME"
        )
    if name == REVOKE:
        token_file_editor.remove_token(file, named)
        if invocation.json:
            values = {"name": named, "revoked": True, "file": str(file)}
            invocation.screen.write_json(values)
        else:
            invocation.screen.write(f"{named} revoked")
        return
    similar = "" if name == CREATE else _action_like(name)
    if named and name != CREATE:
        raise UsageError(
            "", f"Unexpected argument {named!r}", f"{similar}Use: herdbook token NAME"
        )
    if similar:
        raise UsageError(
            "",
            f"Unknown action {name!r}",
            f"{similar}To create a token with that name: herdbook token create {name}",
        )
    name = named or name
    given = {
        "models": models or [],
        "max_requests": max_requests,
        "tokens_per_day": tokens_per_day,
    }
    limits = tokens.token_limits(given, f"token {name}")
    secret = token_file_editor.add_token(
        file, name, tokens.Role(role.value), replace=replace, limits=limits
    )
    if invocation.json:
        values = {"name": name, "role": role.value, "token": secret}
        invocation.screen.write_json({**values, "file": str(file)})
    else:
        invocation.screen.write(secret)
        # Not on stdout, which a script reads the token from.
        sys.stderr.write(f"For the service: herdbook serve --tokens {file}\n")


def _action_like(name: str) -> str:
    """Return a sentence that suggests an action; empty for what may well be a name."""
    if ours := OTHER_WORDS["herdbook token"].get(name):
        return f"Did you mean {ours!r}? "
    # "reader" is a name, although it shares four letters with "create".
    return did_you_mean(name, (CREATE, LIST, REVOKE), similarity=0.8)


def _list(invocation: Invocation, known: Sequence[Token]) -> None:
    if invocation.json:
        invocation.screen.write_json(
            [
                {"name": one.name, "role": one.role.value, "limits": one.limits}
                for one in known
            ]
        )
        return
    rows = [
        Row([Piece(one.name), Piece(one.role.value), Piece(_limits(one))])
        for one in known
    ]
    columns = (Column("NAME"), Column("ROLE"), Column("LIMITS"))
    invocation.screen.write_table(columns, rows)


def _limits(token: Token) -> str:
    limits = token.limits
    parts = [
        f"models {' '.join(limits.models)}" if limits.models else "",
        f"{limits.max_requests:,} requests at once" if limits.max_requests else "",
        f"{limits.tokens_per_day:,} tokens a day" if limits.tokens_per_day else "",
    ]
    return ", ".join(filter(None, parts)) or NOTHING
