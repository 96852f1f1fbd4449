"""Verbs for a desired set of models: apply, freeze.

Nothing is deleted that the plan did not show, and nothing without a yes: a person's
at a terminal, ``--yes`` elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, aclosing
from pathlib import Path
from typing import Annotated

import typer

from herdbook.cli.app import ACT, verb
from herdbook.cli.errors import DONE, FAILED, UsageError
from herdbook.cli.invocation import Invocation
from herdbook.cli.options import NoRefresh
from herdbook.cli.output import Column, Piece, Row
from herdbook.cli.render import progress
from herdbook.core import ModelManager
from herdbook.core.desired.desired import read, toml_text
from herdbook.core.desired.plan import (
    ConfigureStep,
    DeleteStep,
    LoadStep,
    Plan,
    PlanProgress,
    PullStep,
    Step,
    UnloadStep,
)
from herdbook.presentation import shapes
from herdbook.presentation.wording import UNKNOWN, counted, joined
from herdbook.projections.sentences import bytes_text, setting_text

_COLUMNS = (Column("STEP"), Column("MODEL"), Column("WHAT"))
_STYLES = {"delete": "red", "unload": "yellow"}
_DONE = {
    PullStep: "pulled",
    ConfigureStep: "configured",
    UnloadStep: "unloaded",
    DeleteStep: "deleted",
    LoadStep: "loaded",
}


@verb("apply", ACT)
async def apply(
    invocation: Invocation,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The desired set, in TOML.")
    ],
    *,
    plan_only: Annotated[
        bool, typer.Option("--plan", help="Show what would be done; do nothing.")
    ] = False,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune", help="Delete models, and unset settings, that it does not name."
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> int:
    """Bring the server to a desired set of models, step by step.

    Fetches, configures and loads what the file names. Deletes only with --prune, and
    then asks first; without a terminal that needs --yes.
    """
    if prune and not (plan_only or yes or invocation.attended):
        raise UsageError("--prune", "deletes, and nobody is here to ask", "Add --yes")
    desired = read(file)
    async with invocation.acting() as manager:
        plan = await manager.plan(desired, prune=prune)
        if plan_only:
            _tell_plan(invocation, plan)
            return DONE
        if not invocation.json:
            _tell_plan(invocation, plan)
        if plan.deletes and not yes and not invocation.agreed(_question(plan)):
            invocation.screen.write("Nothing was done.")
            return FAILED
        await _Doing(invocation, plan).run(manager)
        return DONE


def _tell_plan(invocation: Invocation, plan: Plan) -> None:
    if invocation.json:
        invocation.screen.write_json(shapes.planned(plan))
        return
    if not plan.steps:
        invocation.screen.write(f"Nothing to do: all is as {plan.origin} has it.")
        return
    invocation.screen.write_table(_COLUMNS, [_row(step) for step in plan.steps])
    invocation.screen.write(_total(plan))


def _row(step: Step) -> Row:
    word = _word(step)
    return Row(
        [Piece(word, _STYLES.get(word, "")), Piece(step.name), Piece(_what(step))]
    )


def _word(step: Step) -> str:
    return type(step).__name__.removesuffix("Step").lower()


def _what(step: Step) -> str:
    match step:
        case PullStep():
            return f"{_size(step.size_bytes)} to fetch"
        case ConfigureStep():
            return ", ".join(_settings(step))
        case UnloadStep():
            return f"frees {_size(step.memory_bytes)} of memory"
        case LoadStep():
            return f"at least {_size(step.size_bytes)} of memory"
        case DeleteStep() if step.shared_with:
            return (
                f"frees next to nothing: same weights as {', '.join(step.shared_with)}"
            )
        case _:
            return f"frees {bytes_text(step.frees_bytes)}"


def _size(size: int | None) -> str:
    return UNKNOWN if size is None else bytes_text(size)


def _settings(step: ConfigureStep) -> Iterator[str]:
    for name in (*step.set, *step.unset):
        was = setting_text(step.was[name]) if name in step.was else "not set"
        now = f"set to {setting_text(step.set[name])}" if name in step.set else "unset"
        yield f"{name} {now} (was: {was})"


def _total(plan: Plan) -> str:
    unknown = plan.unknown_sizes
    fetch = bytes_text(plan.fetch_bytes) if plan.fetch_bytes else ""
    if unknown:
        fetch = " and ".join(filter(None, [fetch, f"{unknown} of unknown size"]))
    return joined(
        [
            counted(len(plan.steps), "step"),
            f"{fetch} to fetch" if fetch else "",
            f"{bytes_text(plan.frees_bytes)} freed" if plan.deletes else "",
        ]
    )


def _question(plan: Plan) -> str:
    models = counted(len(plan.deletes), "model")
    return f"Do all that, and delete {models} ({bytes_text(plan.frees_bytes)})?"


class _Doing:
    """The doing of one plan, as this call sees it."""

    def __init__(self, invocation: Invocation, plan: Plan) -> None:
        self._screen = invocation.screen
        self._json = invocation.json
        self._plan = plan
        self._left = list(plan.steps)
        self._shown = ExitStack()
        self._meter: progress.Meter | None = None

    async def run(self, manager: ModelManager) -> None:
        """Do it; where a step fails, tell which are not done.

        Raises:
            HerdbookError: A step failed.
        """
        try:
            with self._shown:
                async with aclosing(manager.apply(self._plan)) as telling:
                    async for each in telling:
                        self._take(each)
        finally:
            self._tell_left()

    def _take(self, told: PlanProgress) -> None:
        if told.done:
            self._shown.close()
            self._left.pop(0)
            self._tell(told.step, "done", f"{told.step.name} {_DONE[type(told.step)]}")
        elif told.progress is None:
            self._begin(told.step)
        elif self._meter is not None:
            self._meter.tell(told.progress)

    def _begin(self, step: Step) -> None:
        """Show that a step is at work, in the way that fits it."""
        if isinstance(step, PullStep):
            meter = progress.meter(self._screen, step.name, as_json=self._json)
            self._meter = self._shown.enter_context(meter)
        else:
            text = f"{_word(step)} {step.name}"
            self._shown.enter_context(self._screen.waiting(text, quiet=self._json))

    def _tell_left(self) -> None:
        """Tell what is not done: nothing where all is."""
        for number, step in enumerate(self._left):
            state = "left" if number else "failed"
            word = "not begun" if number else "not done"
            self._tell(step, state, f"{word}: {_word(step)} {step.name}")

    def _tell(self, step: Step, state: str, text: str) -> None:
        if self._json:
            told = shapes.Applied(step=step, state=state)
            self._screen.write_json(told, in_lines=True)
        else:
            self._screen.write(text)
            self._screen.stream.flush()


@verb("freeze", ACT)
async def freeze(invocation: Invocation, *, no_refresh: NoRefresh = False) -> None:
    """Write what is there as a desired set, for apply.

    Its models with their settings, and which are in memory.
    """
    async with invocation.reading(look=not no_refresh) as manager:
        frozen = await manager.freeze()
        if invocation.json:
            invocation.screen.write_json(frozen)
            return
        moment = await manager.now()
    now = f"{invocation.now.at:%Y-%m-%d %H:%M} UTC"
    head = f"# What {invocation.node} had on {now} (event #{moment.position})"
    print(f"{head}\n\n{toml_text(frozen)}", end="", file=invocation.screen.stream)
