"""The table of models for ``ls`` and ``as-of``.

Models that share weights are adjacent. The order is by how soon a model can be used:
loaded, available, loading, error, deleted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from herdbook.cli.output import Column, Line, Piece, Row, bar, line
from herdbook.cli.render.states import state_piece
from herdbook.core import ModelRegistry, ModelState, ModelStatus, ReadModel
from herdbook.presentation import facts, wording
from herdbook.presentation.sorting import display_order, twins_of
from herdbook.presentation.times import Now
from herdbook.projections.sentences import counted
from herdbook.projections.status import Work

_NODE = Column("NODE")
_COLUMNS = (
    Column("MODEL"),
    Column("STATE"),
    Column("SIZE", gives_way=1, right=True),
    Column("CONTEXT", gives_way=2),
    Column("CAN", gives_way=3),
    Column("LAST USED", gives_way=4),
)


class ModelsTable:
    """The models at one position, as a table; with their node if there are several.

    Args:
        nodes: The models of each node.
        registry: Known models, for details that the server has not reported.
        now: The current time.
        bars: Whether to draw progress bars.
    """

    def __init__(
        self,
        nodes: Sequence[ReadModel],
        registry: ModelRegistry,
        now: Now,
        *,
        bars: bool = False,
    ) -> None:
        self._nodes = {models.node: models for models in nodes}
        self._registry = registry
        self._now = now
        self._bars = bars

    @property
    def columns(self) -> Sequence[Column]:
        """The columns of the rows."""
        first, *others = _COLUMNS
        return [first, _NODE, *others] if len(self._nodes) > 1 else _COLUMNS

    def chosen(self, *, deleted: bool = False) -> list[ModelStatus]:
        """Return the models in order; with ``deleted`` also those not present.

        A pull that failed more than a day ago is like a deletion.
        """
        return display_order(
            status
            for models in self._nodes.values()
            for status in models.statuses()
            if deleted
            or not (
                status.state is ModelState.NOT_PRESENT
                or status.is_old_failure(self._now.at)
            )
        )

    def rows(self, statuses: Sequence[ModelStatus]) -> list[Row]:
        """Return a row per model, with notes above and below it."""
        twins = twins_of(statuses)
        return [
            self._row(status, twins.get((status.node, status.name)))
            for status in statuses
        ]

    def _row(self, status: ModelStatus, twin: str | None) -> Row:
        can = self._nodes[status.node].capabilities(status.name)
        cells = [
            Piece(status.name),
            *([Piece(status.node)] if len(self._nodes) > 1 else []),
            state_piece(status),
            Piece(wording.size_text(status)),
            Piece(wording.context_text(status, self._registry)),
            Piece(
                wording.capabilities_text(n for n, known in can.items() if known.value)
            ),
            Piece(wording.used_text(status, self._now)),
        ]
        remark = Piece(f" (same weights as {twin})", "dim")
        above = None if twin is None else line(status.name, remark)
        return Row(cells, above, [*self._below(status)])

    def _below(self, status: ModelStatus) -> Iterator[Line]:
        for work in (status.work, status.update):
            if work is not None:
                yield self._work_line(work)
        failure = facts.failure_text(status, self._now)
        if failure:
            yield line("  ", Piece(failure, "red"))

    def _work_line(self, work: Work) -> Line:
        by = f"by {work.actor}, {self._now.ago(work.since)}"
        if work.cancelled_by is not None:
            by += f"; cancellation requested by {work.cancelled_by}"
        verb = f"  {work.activity} "
        completed, total = work.completed_bytes, work.total_bytes
        if completed is None or not total:
            return line(f"{verb}started {by}")
        drawn = (*bar(completed / total), Piece(" ")) if self._bars else ()
        figures = wording.of_text(completed, total)
        share = f"{wording.percent(completed, total)}%"
        return (Piece(verb), *drawn, Piece(f"{share}   {figures}   {by}"))


def footers(
    nodes: Sequence[ReadModel],
    statuses: Sequence[ModelStatus],
    now: Now,
    *,
    remark: str = "",
) -> Iterator[Line]:
    """Yield the lines below the table: node, models, bytes, memory, event.

    With several nodes, a line for each that does not answer, then a line for all.

    Args:
        nodes: All models, of each node.
        statuses: The models in the table.
        now: The time of the table.
        remark: An addition to the status of the nodes.
    """
    states = [models.node_status() for models in nodes]
    if len(states) == 1:
        name, words = states[0].name, wording.node_text(states[0], now)
    else:
        name, words = counted(len(states), "node"), ""
        for node in states:
            if not node.reached:
                text = wording.joined([node.name, wording.node_text(node, now)])
                yield line(Piece(text, "yellow"))
    disk, memory = wording.disk_text(statuses), wording.memory_text(statuses)
    text = wording.joined(
        [
            name,
            f"{words}{remark}".removeprefix(", "),
            counted(sum(one.present for one in statuses), "model") + disk,
            memory,
            wording.position_text(nodes[0].position),
        ]
    )
    yield line(Piece(text, "dim" if all(node.reached for node in states) else "yellow"))
