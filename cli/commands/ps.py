"""The verb ``ps``: the loaded models and their memory."""

from __future__ import annotations

from collections.abc import Sequence

from herdbook.cli.app import INSPECT, verb
from herdbook.cli.invocation import Invocation
from herdbook.cli.options import NoRefresh
from herdbook.cli.output import Column, Piece, Row, line
from herdbook.core import (
    Cause,
    HistoryEntry,
    HistoryFilter,
    ModelManager,
    ModelStatus,
    Runner,
)
from herdbook.presentation import facts, wording
from herdbook.presentation.loaded import LoadedModel, LoadedModels, by_runner
from herdbook.presentation.times import Now
from herdbook.projections.sentences import bytes_text, tokens_text

_COLUMNS = (
    Column("MODEL"),
    Column("MEMORY", right=True),
    Column("PROCESSOR"),
    Column("CONTEXT"),
    Column("EXPIRES"),
    Column("LOADED"),
    Column("LAST USED"),
)
_LOADS = HistoryFilter(types=frozenset({"ModelLoaded"}), limit=1)


@verb("ps", INSPECT)
async def ps(invocation: Invocation, *, no_refresh: NoRefresh = False) -> None:
    """List the loaded models with memory, expiry and last use."""
    async with invocation.reading(refresh=not no_refresh) as manager:
        models = await manager.now()
        groups = by_runner(models.statuses())
        loads = [await _load(manager, group) for group in groups]
        node = models.node_status()
    screen = invocation.screen
    shown = [_shape(*each) for each in zip(groups, loads, strict=True)]
    if invocation.json:
        screen.write_json(
            LoadedModels(
                models=shown,
                size_bytes=sum(each.size_bytes or 0 for each in shown),
                gpu_bytes=sum(each.gpu_bytes or 0 for each in shown),
                stale_since=None if node.reached else node.since,
            )
        )
        return
    rows = [
        _row(group, load, invocation.now)
        for group, load in zip(groups, loads, strict=True)
    ]
    if rows:
        screen.write_table(_COLUMNS, rows)
    remark = "" if node.reached else wording.node_text(node, invocation.now)
    screen.write(
        Piece(wording.joined([node.name, remark, _total(shown)]), "dim"),
    )


async def _load(
    manager: ModelManager, group: Sequence[ModelStatus]
) -> HistoryEntry | None:
    """Return the event that loaded a model; None if the log has none."""
    entries = await manager.history(group[0].name, _LOADS)
    return entries[-1] if entries else None


def _shape(group: Sequence[ModelStatus], load: HistoryEntry | None) -> LoadedModel:
    runner, used = group[0].runner, _last_used(group)
    return LoadedModel(
        name=group[0].name,
        also=tuple(each.name for each in group[1:]),
        state=group[0].state,
        size_bytes=runner.size_bytes if runner else None,
        gpu_bytes=runner.size_vram_bytes if runner else None,
        cpu_bytes=_cpu_bytes(runner) if runner else None,
        context=group[0].context_in_effect,
        expires_at=runner.expires_at if runner else None,
        loaded_at=load.recorded_at if load else None,
        loaded_by=load.actor if load else None,
        observed=load is not None and load.cause is not Cause.COMMAND,
        last_used_at=used.last_used_at,
        last_used_by=used.last_used_by,
    )


def _last_used(group: Sequence[ModelStatus]) -> ModelStatus:
    """Return the most recently used model; the first if none was used."""
    used = [each for each in group if each.last_used_at is not None]
    return max(used, key=lambda each: str(each.last_used_at), default=group[0])


def _cpu_bytes(runner: Runner) -> int:
    return max(runner.size_bytes - runner.size_vram_bytes, 0)


def _row(group: Sequence[ModelStatus], load: HistoryEntry | None, now: Now) -> Row:
    status, runner = group[0], group[0].runner
    context = status.context_in_effect
    loaded = (
        f"{now.ago(load.recorded_at)}, {wording.who_text(load)}"
        if load
        else wording.UNKNOWN
    )
    cells = [
        Piece(status.name, "bold"),
        Piece(bytes_text(runner.size_bytes) if runner else wording.UNKNOWN),
        Piece(_processor(runner) if runner else wording.UNKNOWN),
        Piece(tokens_text(context) if context else wording.UNKNOWN),
        Piece((runner and facts.expiry_text(runner, now)) or wording.UNKNOWN),
        Piece(loaded),
        Piece(wording.used_text(_last_used(group), now)),
    ]
    also = ", ".join(each.name for each in group[1:])
    below = [line(Piece(f"  also {also} (same weights)", "dim"))] if also else []
    return Row(cells, below=below)


def _processor(runner: Runner) -> str:
    """Return the split between GPU and CPU: ``100 % GPU``, ``48 % CPU, 52 % GPU``."""
    if not runner.size_bytes or not runner.size_vram_bytes:
        return "100 % CPU"
    gpu = wording.percent(runner.size_vram_bytes, runner.size_bytes)
    return "100 % GPU" if gpu == 100 else f"{100 - gpu} % CPU, {gpu} % GPU"


def _total(shown: Sequence[LoadedModel]) -> str:
    if not shown:
        return "no models loaded"
    total = sum(each.size_bytes or 0 for each in shown)
    gpu = sum(each.gpu_bytes or 0 for each in shown)
    split = f"{bytes_text(gpu)} on GPUs, {bytes_text(total - gpu)} in main memory"
    loaded = wording.counted(len(shown), "model")
    return f"{loaded} loaded, {bytes_text(total)} ({split})"
