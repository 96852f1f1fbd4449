"""The table of all models: what ``ls`` and ``as-of`` show.

Models of the same weights stand together, since they are one thing in memory and
on disk. The order is by what can be used soonest: loaded, available, loading, in
error, gone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from herdbook.cli import wording
from herdbook.cli.screen import Column, Line, Piece, Row, bar, line
from herdbook.cli.times import Now
from herdbook.core import ModelRegistry, ModelState, ModelStatus, Moment, NodeStatus
from herdbook.projections.sentences import bytes_text
from herdbook.projections.status import Work

COLUMNS = (
    Column("MODEL"),
    Column("STATE"),
    Column("SIZE", gives_way=1, right=True),
    Column("CONTEXT", gives_way=2),
    Column("CAN", gives_way=3),
    Column("LAST USED", gives_way=4),
)

_ORDER = (
    ModelState.LOADED,
    ModelState.AVAILABLE,
    ModelState.LOADING,
    ModelState.ERROR,
    ModelState.NOT_PRESENT,
)


class Herd:
    """The models of one moment, as a table.

    Args:
        moment: The moment.
        registry: What is expected of models that nobody has looked at.
        now: The present.
        bars: Whether there is someone to see bars.
    """

    def __init__(
        self,
        moment: Moment,
        registry: ModelRegistry,
        now: Now,
        *,
        bars: bool = False,
    ) -> None:
        self._moment = moment
        self._registry = registry
        self._now = now
        self._bars = bars

    def chosen(self, *, gone: bool = False) -> list[ModelStatus]:
        """Return the models to show, in order; with ``gone`` also those not there."""
        statuses = [
            status
            for status in self._moment.statuses()
            if gone or status.state is not ModelState.NOT_PRESENT
        ]
        first = {key: min(names) for key, names in _by_weights(statuses).items()}
        return sorted(
            statuses,
            key=lambda status: (
                _ORDER.index(status.state),
                first.get(status.weights or "", status.name),
                status.name,
            ),
        )

    def rows(self, statuses: Sequence[ModelStatus]) -> list[Row]:
        """Return a row for each model, with remarks above and below it."""
        first: dict[str, str] = {}
        rows = []
        for status in statuses:
            twin = status.name
            if status.weights is not None and status.present:
                twin = first.setdefault(status.weights, status.name)
            rows.append(self._row(status, None if twin == status.name else twin))
        return rows

    def _row(self, status: ModelStatus, twin: str | None) -> Row:
        can = self._moment.capabilities(status.name)
        cells = [
            Piece(status.name),
            wording.state_piece(status),
            Piece(wording.size_text(status)),
            Piece(wording.context_text(status, self._registry)),
            Piece(wording.abilities_text(n for n, known in can.items() if known.value)),
            Piece(wording.used_text(status, self._now)),
        ]
        remark = Piece(f" (same weights as {twin})", "dim")
        above = None if twin is None else line(status.name, remark)
        return Row(cells, above, [*self._below(status)])

    def _below(self, status: ModelStatus) -> Iterator[Line]:
        for work in (status.work, status.update):
            if work is not None:
                yield self._work_line(work)
        failure = status.last_failure
        if failure is not None:
            what = wording.failed_word(failure.event)
            when = self._now.ago(failure.at)
            reason = wording.plain_failure(status.name, failure.message)
            yield line("  ", Piece(f"{what} failed {when}: {reason}", "red"))

    def _work_line(self, work: Work) -> Line:
        asked = f"by {work.actor}, {self._now.ago(work.since)}"
        verb = f"  {work.activity} "
        completed, total = work.completed_bytes, work.total_bytes
        if completed is None or not total:
            return line(f"{verb}asked for {asked}")
        drawn = (*bar(completed / total), Piece(" ")) if self._bars else ()
        figures = wording.of_text(completed, total)
        share = f"{wording.percent(completed, total)} %"
        return (Piece(verb), *drawn, Piece(f"{share}   {figures}   {asked}"))


def _by_weights(statuses: Sequence[ModelStatus]) -> Mapping[str, list[str]]:
    names = defaultdict(list)
    for status in statuses:
        if status.weights is not None:
            names[status.weights].append(status.name)
    return names


def footer(
    moment: Moment, statuses: Sequence[ModelStatus], now: Now, *, remark: str = ""
) -> Line:
    """Return the line below the table: node, models, bytes, memory, event.

    Args:
        moment: The moment of the table.
        statuses: The models in it.
        now: The present, as the moment has it.
        remark: What else there is to say of the node.
    """
    node = moment.node_status()
    text = wording.joined(
        [
            node.name,
            _node_text(node, now) + remark,
            wording.counted(len(statuses), "model") + _disk_text(statuses),
            _memory_text(statuses),
            f"event {moment.position:,}",
        ]
    )
    return line(Piece(text, "dim" if node.reached else "yellow"))


def _node_text(node: NodeStatus, now: Now) -> str:
    """Return its version, and since when it does not answer if it does not."""
    if node.version == 0:
        return "no server has answered yet"
    told = f"Ollama {node.server_version}"
    if node.reached or node.since is None:
        return told
    return f"{told}, stale since {now.clock(node.since)}"


def _disk_text(statuses: Sequence[ModelStatus]) -> str:
    sizes = [(s.weights or s.name, s.size_bytes) for s in statuses if s.size_bytes]
    if not sizes:
        return ""
    total = sum(size for _, size in sizes)
    largest: dict[str, int] = {}
    for weights, size in sizes:
        largest[weights] = max(size, largest.get(weights, 0))
    once = sum(largest.values())
    shared = f" ({bytes_text(once)} without shared weights)" if once != total else ""
    return f", {bytes_text(total)} on disk{shared}"


def _memory_text(statuses: Sequence[ModelStatus]) -> str:
    """Return the memory of the runners, each counted once."""
    runners = {s.runner.digest: s.runner.size_bytes for s in statuses if s.runner}
    return f"{bytes_text(sum(runners.values()))} in memory" if runners else ""
