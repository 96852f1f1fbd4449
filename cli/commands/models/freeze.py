"""The verb ``freeze``: print the models of all nodes as a desired set."""

from __future__ import annotations

from herdbook.cli.app import CHANGE, verb
from herdbook.cli.invocation import Invocation
from herdbook.cli.options import NoRefresh
from herdbook.core.desired.desired import toml_text
from herdbook.presentation import wording


@verb("freeze", CHANGE)
async def freeze(invocation: Invocation, *, no_refresh: NoRefresh = False) -> None:
    """Print the current models as a desired set.

    Includes the models' settings, whether they are loaded and, with several nodes,
    which nodes they are on. `herdbook apply` reads the result.
    """
    async with invocation.reading(refresh=not no_refresh) as fleet:
        frozen = await fleet.freeze()
        if invocation.json:
            invocation.screen.write_json(frozen)
            return
        names, position = fleet.names, fleet.home.latest().position
    now = f"{invocation.now.at:%Y-%m-%d %H:%M} UTC"
    head = (
        f"# Models of {', '.join(names)} on {now} ({wording.position_text(position)})"
    )
    print(f"{head}\n\n{toml_text(frozen)}", end="", file=invocation.screen.stream)
