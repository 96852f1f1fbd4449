"""Verbs for the current state: ``ls``, ``show``, ``recommend`` and ``suggest``."""

from __future__ import annotations

from typing import Annotated

import typer

from herdbook.cli.app import INSPECT, verb
from herdbook.cli.errors import DONE, NOT_FOUND, UsageError
from herdbook.cli.invocation import Invocation
from herdbook.cli.lookup import known_status, node_for
from herdbook.cli.options import AnyRole, Model, NoRefresh, Role
from herdbook.cli.output import Piece, line
from herdbook.cli.render import models_table, ranking
from herdbook.cli.render.model_card import Card
from herdbook.core import Fleet, ModelRole
from herdbook.core.fleet import queries
from herdbook.core.models.sizes import parse_size
from herdbook.presentation import shapes
from herdbook.presentation.filtering import CAPABILITIES, STATES, ModelFilter, checked
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
        str, typer.Option(metavar="KEY", help=f"Sort by {', '.join(SORT_KEYS)}.")
    ] = "state",
    can: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CAPABILITY", help="Only models with this capability. Repeatable."
        ),
    ] = None,
    state: Annotated[
        list[str] | None,
        typer.Option(metavar="STATE", help=f"Only {', '.join(STATES)}. Repeatable."),
    ] = None,
    family: Annotated[
        str,
        typer.Option(metavar="FAMILY", help="Only of this family, such as llama."),
    ] = "",
    larger: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Only models of SIZE or more.")
    ] = None,
    smaller: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Only models of SIZE or less.")
    ] = None,
    no_refresh: NoRefresh = False,
) -> None:
    """List the models, with work in progress."""
    (key,) = checked("--sort", [sort], SORT_KEYS)
    states = checked("--state", state or (), STATES)
    chosen = ModelFilter(
        text=text,
        capabilities=tuple(checked("--can", can or (), CAPABILITIES)),
        states=frozenset(STATES[each] for each in states),
        family=family,
        larger_bytes=None if larger is None else read_size(larger),
        smaller_bytes=None if smaller is None else read_size(smaller),
    )
    async with invocation.reading(refresh=not no_refresh, warns=False) as fleet:
        nodes = {models.node: models for models in await fleet.now()}
        screen = invocation.screen
        table = models_table.ModelsTable(
            [*nodes.values()], fleet.registry, invocation.now, bars=screen.interactive
        )
        all_statuses = table.chosen(deleted=every or "deleted" in states)
        matching = [
            each for each in all_statuses if chosen.matches(each, nodes[each.node])
        ]
        statuses = sort_models(matching, key)
        if invocation.json:
            models = [shapes.model(each, nodes[each.node]) for each in statuses]
            screen.write_json(models)
            return
        if statuses:
            screen.write_table(table.columns, table.rows(statuses))
        elif all_statuses:
            screen.write("No models match.")
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


@verb("show", INSPECT)
async def show(
    invocation: Invocation, model: Model, *, no_refresh: NoRefresh = False
) -> None:
    """Show one model: details, their sources, settings, use."""
    async with invocation.reading(refresh=not no_refresh) as fleet:
        manager = await node_for(invocation, fleet, model)
        models = await manager.now()
        status = known_status(models, model)
        if invocation.json:
            invocation.screen.write_json(shapes.model(status, models))
            return
        entries = (await manager.available_history(status.name)).entries
        shown = Card(status, models, entries, invocation.now)
        invocation.screen.write_lines(shown.lines())


@verb("recommend", INSPECT)
async def recommend(
    invocation: Invocation, role: AnyRole = None, *, no_refresh: NoRefresh = False
) -> int:
    """Recommend a model for a role, with reasons.

    Also lists the models that do not fit. Without a role, shows the first choice for
    each. The exit code is 3 if no model fits.
    """
    async with invocation.reading(refresh=not no_refresh) as fleet:
        screen, several = invocation.screen, fleet.is_several
        if role is None:
            answers = [await queries.explain(fleet, each) for each in ModelRole]
            if invocation.json:
                screen.write_json(answers)
            else:
                ranking.show_overview(screen, answers, invocation.now, nodes=several)
            return DONE
        answer = await queries.explain(fleet, role)
        if invocation.json:
            screen.write_json(answer)
        else:
            registry = fleet.registry
            ranking.show(screen, answer, registry, invocation.now, nodes=several)
        return DONE if answer.chosen else NOT_FOUND


@verb("suggest", INSPECT)
async def suggest(
    invocation: Invocation,
    role: Role,
    *,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="Only models that need at most SIZE, such as 16GB."
        ),
    ] = None,
    no_refresh: NoRefresh = False,
) -> None:
    """Suggest models to pull for a role."""
    limit = None if memory is None else read_size(memory)
    async with invocation.reading(refresh=not no_refresh) as fleet:
        found = await queries.suggest(fleet, role, memory_bytes=limit)
        if invocation.json:
            invocation.screen.write_json([shapes.suggested(each) for each in found])
        else:
            ranking.show_suggestions(invocation.screen, found, role)


def read_size(text: str) -> int:
    """Return the bytes of a size: ``16GB``, ``8 GiB``.

    Raises:
        UsageError: The text is not a size.
    """
    size = parse_size(text)
    if size is None:
        raise UsageError(
            f"{text[:80]!r}", "is not a size", "Include a unit, such as 16GB"
        )
    return size
