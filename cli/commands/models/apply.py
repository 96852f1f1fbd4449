"""The verb ``apply``: change the server to match a desired set of models.

Only models that the plan shows are deleted, and only after confirmation: a question
on a terminal, ``--yes`` elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, aclosing
from pathlib import Path
from typing import Annotated

import typer
from msgspec import UNSET

from herdbook.cli.app import CHANGE, verb
from herdbook.cli.errors import DONE, FAILED, UsageError
from herdbook.cli.invocation import Invocation
from herdbook.cli.lookup import only_node
from herdbook.cli.options import Yes
from herdbook.cli.output import Column, Piece, Row
from herdbook.cli.render import progress
from herdbook.core import Fleet, ModelManager
from herdbook.core.desired.desired import DesiredSet, read
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
from herdbook.core.fleet.desired_nodes import NodePlan
from herdbook.presentation import shapes
from herdbook.presentation.wording import UNKNOWN, joined, listed
from herdbook.projections.sentences import bytes_text, counted, setting_text

_COLUMNS = (Column("STEP"), Column("MODEL"), Column("EFFECT"))
_STYLES = {"delete": "red", "unload": "yellow"}
_DONE = {
    PullStep: "pulled",
    ConfigureStep: "configured",
    UnloadStep: "unloaded",
    DeleteStep: "deleted",
    LoadStep: "loaded",
}


@verb("apply", CHANGE)
async def apply(
    invocation: Invocation,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="TOML file with the desired set.")
    ],
    *,
    plan_only: Annotated[
        bool, typer.Option("--plan", help="Show the plan without applying it.")
    ] = False,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune", help="Delete models and unset settings that are not in FILE."
        ),
    ] = False,
    yes: Yes = False,
) -> int:
    """Change the server to match a desired set of models.

    Pulls, configures and loads the models in the file. --prune deletes the
    others, after confirmation; without a terminal, it needs --yes.
    """
    if prune and not (plan_only or yes or invocation.attended):
        raise UsageError(
            "--prune", "deletes models and needs confirmation", "Add --yes"
        )
    desired = read(file)
    async with invocation.acting() as fleet:
        plans = await _plans(invocation, fleet, desired, prune=prune)
        if plan_only:
            _write_plans(invocation, plans)
            return DONE
        if not invocation.json:
            _write_plans(invocation, plans)
        deletes = [step for each in plans for step in each.plan.deletes]
        if deletes and not yes and not invocation.agreed(_question(deletes)):
            invocation.screen.write("Nothing was changed.")
            return FAILED
        several = len(plans) > 1
        runs = {
            each.node: _PlanRun(invocation, each.plan, each.node if several else "")
            for each in plans
        }
        try:
            for node, run in runs.items():
                await run.run(fleet.manager(node))
        finally:
            for run in runs.values():
                run.write_left()
        return DONE


async def _plans(
    invocation: Invocation, fleet: Fleet, desired: DesiredSet, *, prune: bool
) -> list[NodePlan]:
    """Return the plan of the only node, or of each node."""
    if fleet.is_several:
        return await fleet.plan(desired, prune=prune)
    manager = only_node(invocation, fleet)
    plan = await manager.plan(desired, prune=prune)
    return [NodePlan(node=fleet.names[0], plan=plan)]


def _write_plans(invocation: Invocation, plans: list[NodePlan]) -> None:
    screen = invocation.screen
    if len(plans) == 1:
        _write_plan(invocation, plans[0].plan)
        return
    if invocation.json:
        screen.write_json([shapes.planned_on(each.node, each.plan) for each in plans])
        return
    with_steps = [each for each in plans if each.plan.steps]
    if not with_steps:
        screen.write(f"Nothing to do: the nodes match {plans[0].plan.origin}.")
        return
    rows = [
        Row([Piece(each.node), *_row(step).cells])
        for each in with_steps
        for step in each.plan.steps
    ]
    screen.write_table((Column("NODE"), *_COLUMNS), rows)
    for each in with_steps:
        screen.write(f"{each.node}: {_total(each.plan)}")


def _write_plan(invocation: Invocation, plan: Plan) -> None:
    if invocation.json:
        invocation.screen.write_json(shapes.planned(plan))
        return
    if not plan.steps:
        invocation.screen.write(f"Nothing to do: the server matches {plan.origin}.")
        return
    invocation.screen.write_table(_COLUMNS, [_row(step) for step in plan.steps])
    invocation.screen.write(_total(plan))


def _row(step: Step) -> Row:
    word = _word(step)
    return Row(
        [Piece(word, _STYLES.get(word, "")), Piece(step.name), Piece(_effect(step))]
    )


def _word(step: Step) -> str:
    return type(step).__name__.removesuffix("Step").lower()


def _effect(step: Step) -> str:
    match step:
        case PullStep():
            size = step.size_bytes
            return f"{'unknown size' if size is None else bytes_text(size)} to download"
        case ConfigureStep():
            return ", ".join(_settings(step))
        case UnloadStep():
            return f"frees {_size(step.memory_bytes)} of memory"
        case LoadStep():
            return f"needs at least {_size(step.size_bytes)} of memory"
        case DeleteStep() if step.shared_with:
            return f"frees almost no space: same weights as {listed(step.shared_with)}"
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
    download = bytes_text(plan.fetch_bytes) if plan.fetch_bytes else ""
    if plan.unknown_sizes:
        unknown = f"{counted(plan.unknown_sizes, 'model')} of unknown size"
        download = " plus ".join(filter(None, [download, unknown]))
    return joined(
        [
            counted(len(plan.steps), "step"),
            f"{download} to download" if download else "",
            f"{bytes_text(plan.frees_bytes)} freed" if plan.deletes else "",
        ]
    )


def _question(deletes: list[DeleteStep]) -> str:
    models = counted(len(deletes), "model")
    frees = bytes_text(sum(step.frees_bytes for step in deletes))
    return f"Apply the plan and delete {models} ({frees})?"


class _PlanRun:
    """Apply one plan and show its progress.

    Args:
        invocation: The call.
        plan: The plan.
        node: The node to name in the output; empty if there is only one.
    """

    def __init__(self, invocation: Invocation, plan: Plan, node: str) -> None:
        self._node = node
        self._screen = invocation.screen
        self._json = invocation.json
        self._plan = plan
        self._left = list(plan.steps)
        self._started = False
        self._shown = ExitStack()
        self._meter: progress.Meter | None = None

    async def run(self, manager: ModelManager) -> None:
        """Apply the plan.

        Raises:
            HerdbookError: A step failed.
        """
        self._started = True
        with self._shown:
            async with aclosing(manager.apply(self._plan)) as steps:
                async for each in steps:
                    self._show(each)

    def _show(self, now: PlanProgress) -> None:
        if now.done:
            self._shown.close()
            self._left.pop(0)
            self._write(now.step, "done", f"{now.step.name} {_DONE[type(now.step)]}")
        elif now.progress is None:
            self._start(now.step)
        elif self._meter is not None:
            self._meter.show(now.progress)

    def _start(self, step: Step) -> None:
        """Show that a step is running."""
        if isinstance(step, PullStep):
            meter = progress.meter(self._screen, step.name, as_json=self._json)
            self._meter = self._shown.enter_context(meter)
        else:
            text = f"{_word(step)} {step.name}"
            self._shown.enter_context(self._screen.waiting(text, quiet=self._json))

    def write_left(self) -> None:
        """List the steps that were not done: the failed one, and those skipped."""
        for number, step in enumerate(self._left):
            failed = self._started and number == 0
            state = "failed" if failed else "left"
            word = "failed" if failed else "skipped"
            self._write(step, state, f"{word}: {_word(step)} {step.name}")

    def _write(self, step: Step, state: str, text: str) -> None:
        if self._json:
            node = self._node or UNSET
            applied = shapes.Applied(step=step, state=state, node=node)
            self._screen.write_json(applied, in_lines=True)
        else:
            self._screen.write(f"{self._node}: {text}" if self._node else text)
            self._screen.stream.flush()
