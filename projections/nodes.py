"""Which nodes of a log are managed, and which one is meant where none is named."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from herdbook.projections.status import NodeStatus

FIRST_NODE: Final = "local"
"""Name of the node of a log that has none."""


def managed_nodes(
    nodes: Iterable[NodeStatus], chosen: str | None = None
) -> list[NodeStatus]:
    """Return the nodes to manage, by name.

    These are the nodes that were added or reached, and not removed. If there are none,
    it is ``chosen``, or ``local``.

    Args:
        nodes: The nodes of a log.
        chosen: A node that is managed even if it was never added or reached.
    """
    known = {node.name: node for node in nodes}
    found = {name: node for name, node in known.items() if _is_managed(node)}
    name = chosen or FIRST_NODE
    expected = known.get(name) or NodeStatus(name=name)
    if not found or (chosen is not None and expected.removed_at is None):
        found.setdefault(name, expected)
    return [found[name] for name in sorted(found)]


def _is_managed(node: NodeStatus) -> bool:
    return node.managed or (bool(node.url) and node.removed_at is None)


def default_node(nodes: Iterable[NodeStatus]) -> str | None:
    """Return the node that is meant where none is named; None for none of several.

    It is the only managed node, or ``local`` if that is one of several.
    """
    names = [node.name for node in managed_nodes(nodes)]
    if len(names) == 1:
        return names[0]
    return FIRST_NODE if FIRST_NODE in names else None
