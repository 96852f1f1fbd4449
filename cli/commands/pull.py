"""The verb pull: fetch a model, or update one that is there, and be told how far.

Ctrl-C cancels the pull; what the server then has is told, and the log has it.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Annotated

import typer

from herdbook.cli.app import ACT, verb
from herdbook.cli.errors import DONE, FAILED
from herdbook.cli.invocation import Invocation
from herdbook.cli.options import DryRun, Model
from herdbook.cli.render import costs, progress
from herdbook.core import HistoryFilter, ModelManager, PullProgress
from herdbook.presentation import shapes, wording

_ENDS = frozenset({"PullCompleted", "ModelUpdated", "UpdateUnchanged"})


@verb("pull", ACT)
async def pull(
    invocation: Invocation,
    model: Model,
    *,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Take a registry without TLS.")
    ] = False,
    dry_run: DryRun = False,
) -> int:
    """Fetch a model, or update it; tell what it costs, and how far it is.

    Ctrl-C cancels it: the server keeps what it has, and a later pull goes on from
    there.
    """
    async with invocation.acting() as manager:
        name = (await manager.now()).spelled(model)
        cost = await manager.cost_of_pull(name)
        costs.tell(invocation, cost, alone=dry_run)
        if dry_run:
            return DONE
        following = Following(invocation, manager, name)
        try:
            await following.run(insecure=insecure)
        except asyncio.CancelledError:
            await following.tell_cancelled()
            return FAILED
        await following.tell_done()
        return DONE


class Following:
    """One pull as this call sees it."""

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
            OllamaError: The server could not get it.
        """
        screen, as_json = self._invocation.screen, self._invocation.json
        pulling = self._manager.pull(self._name, insecure=insecure)
        with progress.meter(screen, self._name, as_json=as_json) as meter:
            async with aclosing(pulling) as told:
                async for each in told:
                    self._last = each
                    meter.tell(each)

    async def tell_done(self) -> None:
        """Tell how it ended, in the words of the log."""
        if self._invocation.json:
            self._tell_json("done")
            return
        ends = HistoryFilter(types=_ENDS, limit=1)
        entries = await self._manager.history(self._name, ends)
        told = entries[-1].sentence if entries else "is there"
        self._invocation.screen.write(f"{self._name} {told}")

    async def tell_cancelled(self) -> None:
        """Tell what is left behind."""
        status = await self._manager.get_status(self._name)
        work = status.work or status.update
        if self._invocation.json:
            self._tell_json("cancelled" if work is None else "left")
            return
        if work is not None:
            text = f"no longer watching; the pull goes on for {work.actor}"
        else:
            text = left_behind(self._last)
        self._invocation.screen.write(text)

    def _tell_json(self, state: str) -> None:
        told = shapes.progress(self._name, state, self._last)
        self._invocation.screen.write_json(told, in_lines=True)


def left_behind(last: PullProgress | None) -> str:
    """Return what a cancelled pull leaves behind, in words."""
    if last is None or not last.completed_bytes:
        return "cancelled before the first byte."
    share = wording.share_text(last.completed_bytes, last.total_bytes)
    return (
        f"cancelled at {share}. "
        "The server keeps what it has; a later pull goes on from there."
    )
