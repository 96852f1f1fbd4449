"""The verb ``pull``: download or update models, with progress.

Ctrl-C cancels the pull, and the log records the cancellation.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Annotated

import typer

from herdbook.cli.app import CHANGE, verb
from herdbook.cli.batch import Target, check_names, for_each, targets
from herdbook.cli.errors import DONE, FAILED
from herdbook.cli.invocation import Invocation
from herdbook.cli.lookup import node_for
from herdbook.cli.options import DryRun, Models
from herdbook.cli.render import costs, progress
from herdbook.core import Fleet, HistoryFilter, ModelManager, PullProgress
from herdbook.core.fleet import queries
from herdbook.presentation import shapes, wording

_ENDS = frozenset({"PullCompleted", "ModelUpdated", "UpdateUnchanged"})


@verb("pull", CHANGE)
async def pull(
    invocation: Invocation,
    models: Models,
    *,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Allow a registry without TLS.")
    ] = False,
    dry_run: DryRun = False,
) -> int:
    """Download or update models; show cost and progress.

    Ctrl-C cancels the pull and skips the remaining models. The server keeps the
    downloaded part, and the next pull resumes there. If there are several nodes, a
    model that none of them has is pulled to the one with the most free memory, unless
    --node chooses another.
    """
    await check_names(invocation, models)
    async with invocation.acting() as fleet:
        chosen = await targets(invocation, fleet, models, find=_node_to_pull)
        cancelled = False

        async def pull_one(model: Target) -> int:
            nonlocal cancelled
            if cancelled:
                return FAILED
            if model.node is not None and not invocation.json:
                invocation.screen.write(f"Node for {model.name}: {model.node}")
            cost = await model.manager.cost_of_pull(model.name)
            costs.write(invocation, cost, alone=dry_run, in_lines=len(chosen) > 1)
            if dry_run:
                return DONE
            follower = PullFollower(invocation, model.manager, model.name)
            try:
                await follower.run(insecure=insecure)
            except asyncio.CancelledError:
                cancelled = True
                await follower.write_cancelled()
                return FAILED
            await follower.write_done()
            return DONE

        return await for_each(invocation, chosen, pull_one)


async def _node_to_pull(
    invocation: Invocation, fleet: Fleet, model: str
) -> ModelManager:
    """Return the node that has a model; otherwise one that can get it.

    Raises:
        AmbiguousNodeError: Several nodes have the model.
        NoPlaceError: No node may get it.
    """
    if await fleet.on_which(model):
        return await node_for(invocation, fleet, model)
    return await queries.node_to_pull(fleet, model)


class PullFollower:
    """Follow one pull and show its progress and its end."""

    def __init__(
        self, invocation: Invocation, manager: ModelManager, name: str
    ) -> None:
        self._invocation = invocation
        self._manager = manager
        self._name = name
        self._last: PullProgress | None = None

    async def run(self, *, insecure: bool) -> None:
        """Follow the pull to its end.

        Raises:
            OllamaError: The pull failed.
        """
        screen, as_json = self._invocation.screen, self._invocation.json
        pulling = self._manager.pull(self._name, insecure=insecure)
        with progress.meter(screen, self._name, as_json=as_json) as meter:
            async with aclosing(pulling) as steps:
                async for each in steps:
                    self._last = each
                    meter.show(each)

    async def write_done(self) -> None:
        """Write how the pull ended."""
        if self._invocation.json:
            self._write_json("done")
            return
        ends = HistoryFilter(types=_ENDS, limit=1)
        entries = (await self._manager.available_history(self._name, ends)).entries
        end = entries[-1].sentence if entries else "is up to date"
        self._invocation.screen.write(f"{self._name} {end}")

    async def write_cancelled(self) -> None:
        """Write what the cancelled pull leaves on the server."""
        status = await self._manager.get_status(self._name)
        work = status.work or status.update
        if self._invocation.json:
            self._write_json("cancelled" if work is None else "left")
            return
        if work is not None:
            text = f"no longer following; the pull continues for {work.actor}"
        else:
            text = left_behind(self._last)
        self._invocation.screen.write(text)

    def _write_json(self, state: str) -> None:
        ended = shapes.progress(self._name, state, self._last)
        self._invocation.screen.write_json(ended, in_lines=True)


def left_behind(last: PullProgress | None) -> str:
    """Return what a cancelled pull leaves on the server."""
    if last is None or not last.completed_bytes:
        return "cancelled before the first byte."
    share = wording.share_text(last.completed_bytes, last.total_bytes)
    return (
        f"cancelled at {share}. "
        "The server keeps the downloaded part. Run the pull again to resume."
    )
