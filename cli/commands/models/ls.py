"""The verb ``ls``: the models, with work in progress."""

from __future__ import annotations

from typing import Annotated

import typer

from herdbook.cli.app import INSPECT, verb
from herdbook.cli.invocation import Invocation
from herdbook.cli.options import NoRefresh, size_option
from herdbook.cli.output import Piece, line
from herdbook.cli.render import models_table
from herdbook.core import Fleet, ModelState
from herdbook.presentation.filtering import (
    CAPABILITIES,
    STATE_NAMES,
    ModelFilter,
    checked,
    parse_states,
)
from herdbook.presentation.sorting import SORT_KEYS, sort_models


@verb("ls", INSPECT)
async def ls(  # noqa: PLR0913 - the options of a verb
    invocation: Invocation,
    text: Annotated[
        str, typer.Argument(metavar="[TEXT]", help="Only names that contain TEXT.")
    ] = "",
    *,
    every: Annotated[
        bool, typer.Option("--all", "-a", help="Include deleted models.")
    ] = False,
    sort: Annotated[
        str,
        typer.Option(metavar="KEY", help=f"Sort by one of: {', '.join(SORT_KEYS)}."),
    ] = "state",
    reverse: Annotated[
        bool, typer.Option("--reverse", "-r", help="Reverse the order.")
    ] = False,
    can: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CAPABILITY", help="Only models with this capability. Repeatable."
        ),
    ] = None,
    state: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STATE",
            help=f"Only models in this state: {', '.join(STATE_NAMES)}. Repeatable.",
        ),
    ] = None,
    family: Annotated[
        str,
        typer.Option(
            metavar="FAMILY", help="Only models of this family, such as llama."
        ),
    ] = "",
    larger: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Only models of at least SIZE.")
    ] = None,
    smaller: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Only models of at most SIZE.")
    ] = None,
    no_refresh: NoRefresh = False,
) -> None:
    """List the models and the operations in progress."""
    (key,) = checked("sort key", [sort], SORT_KEYS)
    states, pulling = parse_states(state or ())
    chosen = ModelFilter(
        text=text,
        capabilities=tuple(checked("capability", can or (), CAPABILITIES)),
        states=states,
        pulling=pulling,
        family=family,
        larger_bytes=None if larger is None else size_option(larger),
        smaller_bytes=None if smaller is None else size_option(smaller),
    )
    async with invocation.reading(refresh=not no_refresh, warns=False) as fleet:
        nodes = {models.node: models for models in await fleet.now()}
        screen = invocation.screen
        table = models_table.ModelsTable(
            [*nodes.values()], fleet.registry, invocation.now, bars=screen.interactive
        )
        all_statuses = table.chosen(deleted=every or ModelState.NOT_PRESENT in states)
        matching = [
            each for each in all_statuses if chosen.matches(each, nodes[each.node])
        ]
        statuses = sort_models(matching, key, nodes, reverse=reverse)
        if invocation.json:
            from herdbook.presentation import shapes  # noqa: PLC0415 - slow to import

            models = [shapes.model(each, nodes[each.node]) for each in statuses]
            screen.write_json(models)
            return
        if statuses:
            screen.write_table(table.columns, table.rows(statuses))
        elif all_statuses:
            word = (text or "").lower()
            hint = f" For a capability: herdbook ls --can {word}"
            screen.write("No models match." + (hint if word in CAPABILITIES else ""))
        else:
            screen.write(_advice(fleet, asked=not no_refresh))
        notices = [] if not statuses else _notices(fleet)
        screen.write_lines(line(Piece(notice, "yellow")) for notice in notices)
        remark = ", not refreshed" if no_refresh else ""
        foot = models_table.footers(
            [*nodes.values()], statuses, invocation.now, remark=remark
        )
        screen.write_lines(foot)


def _notices(fleet: Fleet) -> list[str]:
    """Return what there is to say about the last refreshes, a line per node."""
    if not fleet.is_several:
        return [fleet.home.server_notice] if fleet.home.server_notice else []
    problems = {
        node: str(fleet.problem(node) or fleet.manager(node).server_notice)
        for node in fleet.all_names
    }
    return [f"{node}: {problem}" for node, problem in problems.items() if problem]


def _advice(fleet: Fleet, *, asked: bool) -> str:
    """Return a hint for an empty list."""
    notices = _notices(fleet) if asked else []
    unreached = [
        one for one in fleet.managers() if not one.latest().node_status().reached
    ]
    if unreached and notices:
        return f"{notices[0]}."
    return "No models yet. To find one: herdbook suggest general"
