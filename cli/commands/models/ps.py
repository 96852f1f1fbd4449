"""The verb ``ps``: the loaded models and their memory."""

from __future__ import annotations

from collections.abc import Sequence

from herdbook.cli.app import INSPECT, verb
from herdbook.cli.invocation import Invocation
from herdbook.cli.options import NoRefresh
from herdbook.cli.output import Column, Piece, Row, line
from herdbook.core import ModelStatus, NodeStatus, Runner
from herdbook.presentation import facts, wording
from herdbook.presentation.loaded_models import (
    LoadedModels,
    by_runner,
    last_used,
    loaded_models,
)
from herdbook.presentation.times import Now
from herdbook.projections.sentences import (
    bytes_text,
    counted,
    gpu_percent,
    tokens_text,
)

_COLUMNS = (
    Column("MODEL"),
    Column("MEMORY", right=True),
    Column("PROCESSOR"),
    Column("CONTEXT"),
    Column("EXPIRES"),
    Column("LOADED"),
    Column("LAST USED"),
)


@verb("ps", INSPECT)
async def ps(invocation: Invocation, *, no_refresh: NoRefresh = False) -> None:
    """List loaded models: memory, expiry and last use."""
    async with invocation.reading(refresh=not no_refresh) as fleet:
        reported = all(one.reports_loaded for one in fleet.managers())
        several = fleet.is_several
        nodes = [models.node_status() for models in await fleet.now()]
        groups = by_runner(await fleet.statuses())
    screen = invocation.screen
    loaded = loaded_models(groups, nodes, reported=reported)
    if invocation.json:
        screen.write_json(loaded)
        return
    rows = [_row(group, invocation.now, several=several) for group in groups]
    if rows:
        first, *others = _COLUMNS
        columns = [first, Column("NODE"), *others] if several else _COLUMNS
        screen.write_table(columns, rows)
    for node in nodes if several else ():
        if not node.reached:
            text = wording.joined([node.name, wording.node_text(node, invocation.now)])
            screen.write(Piece(text, "yellow"))
    screen.write(
        Piece(wording.joined([*_nodes(nodes, invocation.now), _total(loaded)]), "dim")
    )


def _nodes(nodes: Sequence[NodeStatus], now: Now) -> list[str]:
    """Return which nodes the models are on, in words."""
    if len(nodes) > 1:
        return [counted(len(nodes), "node")]
    node = nodes[0]
    return [node.name, "" if node.reached else wording.node_text(node, now)]


def _row(group: Sequence[ModelStatus], now: Now, *, several: bool) -> Row:
    status, runner = group[0], group[0].runner
    context = status.context_in_effect
    cells = [
        Piece(status.name, "bold"),
        *([Piece(status.node)] if several else []),
        *(Piece(text) for text in _memory(runner)),
        Piece(tokens_text(context) if context else wording.UNKNOWN),
        Piece((runner and facts.expiry_text(runner, now)) or wording.UNKNOWN),
        Piece(wording.load_text(status.last_load, now)),
        Piece(wording.used_text(last_used(group), now)),
    ]
    also = ", ".join(each.name for each in group[1:])
    below = [line(Piece(f"  also {also} (same weights)", "dim"))] if also else []
    return Row(cells, below=below)


def _memory(runner: Runner | None) -> tuple[str, str]:
    """Return the memory of a runner and its processor; an unknown size is 0."""
    if runner is None or not runner.size_bytes:
        return wording.UNKNOWN, wording.UNKNOWN
    return bytes_text(runner.size_bytes), _processor(runner)


def _processor(runner: Runner) -> str:
    """Return the split between GPU and CPU: ``100% GPU``, ``48% CPU, 52% GPU``."""
    gpu = gpu_percent(runner)
    whole = {0: "100% CPU", 100: "100% GPU"}
    return whole.get(gpu, f"{100 - gpu}% CPU, {gpu}% GPU")


def _total(loaded: LoadedModels) -> str:
    if not loaded.models and not loaded.reported:
        return "loaded models: unknown, the server does not report them"
    if not loaded.models:
        return "no models loaded"
    total, gpu = loaded.size_bytes, loaded.gpu_bytes
    split = f"{bytes_text(gpu)} on GPUs, {bytes_text(total - gpu)} in main memory"
    memory = f"{bytes_text(total)} ({split})" if total else "memory not known"
    number = counted(len(loaded.models), "model")
    more = (
        "" if loaded.reported else "; others unknown, the server does not report them"
    )
    return f"{number} loaded, {memory}{more}"
