"""The memory of the runners of each node, beside a sum over all models."""

from __future__ import annotations

from hypothesis import given
from support.strategies import histories

from herdbook.events.recorded import RecordedEvent
from herdbook.projections.status_view import StatusView


def used(view: StatusView, node: str) -> int:
    """Return the memory of the runners of a node; models of one runner count once."""
    runners: dict[str, int] = {}
    for model in view.records(node):
        if (one := model.runner) is not None:
            runners[one.digest] = max(runners.get(one.digest, 0), one.size_bytes)
    return sum(runners.values())


@given(events=histories())
def test_the_most_memory_so_far_is_the_maximum_of_what_was_used(
    events: list[RecordedEvent],
) -> None:
    view, most = StatusView(), dict[str, int]()
    for number, event in enumerate(events):
        if number == len(events) // 2:
            view = StatusView.copy_of(StatusView.load(view.dump()))
        view.apply(event)
        for node in {model.node for model in view.records()}:
            now = used(view, node)
            assert view.memory.used(node) == now
            most[node] = max(most.get(node, 0), now)
    assert view.memory.most == {node: size for node, size in most.items() if size}
