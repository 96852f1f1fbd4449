"""Arguments and options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from herdbook.cli.completion import complete_model, complete_node, complete_role
from herdbook.cli.errors import UsageError
from herdbook.core import ModelRole
from herdbook.core.models.sizes import read_size

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Model name; the tag defaults to latest.",
        autocompletion=complete_model,
    ),
]
Models = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL...",
        help="Model names; the tag defaults to latest.",
        autocompletion=complete_model,
    ),
]
AnyModel = Annotated[
    str | None,
    typer.Argument(
        metavar="[MODEL]",
        help="Model name; default: all models.",
        autocompletion=complete_model,
    ),
]
Role = Annotated[
    str,
    typer.Argument(
        metavar="ROLE",
        help=f"Role: {', '.join(ModelRole)}.",
        autocompletion=complete_role,
    ),
]
NoRefresh = Annotated[
    bool,
    typer.Option(
        "--no-refresh", help="Show the state in the log without asking the server."
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Show the cost without changing anything."),
]
Port = Annotated[
    int,
    typer.Option(min=0, max=65535, metavar="PORT", help="Port; 0 for any free port."),
]
TokenFile = Annotated[
    Path | None,
    typer.Option("--tokens", metavar="FILE", help="Token file; see herdbook token."),
]
AllowedHosts = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-host",
        metavar="NAME",
        help="Accept requests for this host name. Repeatable.",
    ),
]
AnyRole = Annotated[
    str | None,
    typer.Argument(
        metavar="[ROLE]",
        help=f"Role: {', '.join(ModelRole)}; default: all roles.",
        autocompletion=complete_role,
    ),
]

Node = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="Name of the node.", autocompletion=complete_node
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]


def size_option(text: str) -> int:
    """Return the bytes of a size: ``16GB``, ``8 GiB``.

    Raises:
        UsageError: The text is not a size.
    """
    return read_size(text, UsageError)
