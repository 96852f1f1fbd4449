"""The nodes that a log should have, as TOML, and the changes needed to get there.

A file is read strictly: a mistake is an error that names file, node and key, and
nothing of the file is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

from herdbook.core.errors import CallerError, InvalidAddressError
from herdbook.core.errors.suggestions import did_you_mean
from herdbook.core.errors.validation import violation
from herdbook.core.fleet.members import check_settings, node_url
from herdbook.core.models.sizes import parse_size
from herdbook.core.models.toml_file import read_toml
from herdbook.core.ollama.address import identity, same_server
from herdbook.events.facts import NodeSettings
from herdbook.events.streams import check_node
from herdbook.projections.status import NodeStatus

_KINDS: Final[Mapping[str, tuple[type, ...]]] = {
    "url": (str,),
    "key_env": (str,),
    "tags": (dict,),
    "weight": (int, float),
    "models": (list,),
    "prefer": (list,),
    "max_model": (str,),
    "drained": (bool,),
}
"""The keys of a node, and the types of their values."""

_WORDS: Final[Mapping[type, str]] = {
    str: "text",
    dict: "a table",
    int: "a number",
    list: "a list",
    bool: "true or false",
}
"""The types of values in words."""


class DesiredNode(msgspec.Struct, frozen=True, kw_only=True):
    """A node as a file describes it.

    Attributes:
        name: Its name.
        url: Normalized address of its server.
        settings: How Herdbook uses it.
    """

    name: str
    url: str
    settings: NodeSettings


class NodeAction(StrEnum):
    """The kind of change to a node."""

    ADD = "add"
    MOVE = "move"
    CONFIGURE = "configure"
    REMOVE = "remove"


class NodeStep(msgspec.Struct, frozen=True, kw_only=True):
    """One change of the nodes of a log.

    Attributes:
        action: What to do.
        node: Name of the node.
        url: Its address after the change; empty for a removal.
        settings: Its settings after the change; None unless they are needed.
    """

    action: NodeAction
    node: str
    url: str = ""
    settings: NodeSettings | None = None


def read(path: Path) -> list[DesiredNode]:
    """Read the nodes of a TOML file, sorted by name.

    Each is a table ``[nodes.NAME]`` with ``url`` and, optionally, ``key_env``,
    ``tags``, ``weight``, ``models``, ``prefer``, ``max_model`` (such as ``"40GB"``)
    and ``drained``.

    Raises:
        CallerError: The file cannot be read or is not valid.
    """
    data = read_toml(path, "nodes file", CallerError)
    return parse(data, origin=str(path))


def parse(data: Mapping[str, object], *, origin: str = "data") -> list[DesiredNode]:
    """Convert the tables of a TOML document to nodes, sorted by name.

    Raises:
        CallerError: The document is not valid.
    """
    for name in sorted(data.keys() - {"nodes"}):
        raise CallerError(
            f"nodes file {origin}",
            f"is not valid: unknown table [{name}]",
            f"{did_you_mean(name, ['nodes'])}The only table is [nodes]",
        )
    tables = data.get("nodes")
    if not isinstance(tables, Mapping) or not tables:
        raise CallerError(
            f"nodes file {origin}",
            "is not valid: it has no node",
            'Write one: [nodes.gpu1] and url = "http://gpu1:11434"',
        )
    return [_node(origin, name, tables[name]) for name in sorted(tables)]


def _node(origin: str, name: str, table: object) -> DesiredNode:
    if not isinstance(table, Mapping):
        raise _invalid(origin, name, "", "must be a table")
    for key in sorted(table.keys() - _KINDS.keys()):
        hint = did_you_mean(key, _KINDS) or f"The keys are {', '.join(_KINDS)}"
        raise _invalid(origin, name, key, f"does not exist. {hint.strip()}")
    for key, value in table.items():
        # A boolean is an int to Python, but no weight.
        if not isinstance(value, _KINDS[key]) or (
            isinstance(value, bool) and bool not in _KINDS[key]
        ):
            raise _invalid(
                origin,
                name,
                key,
                f"must be {_WORDS[_KINDS[key][0]]}, not {value!r}"[:120],
            )
    if "url" not in table:
        raise _invalid(origin, name, "url", "is missing")
    settings = _settings(origin, name, table)
    try:
        check_node(name)
        url = node_url(name, table["url"])
        check_settings(name, settings)
    except InvalidAddressError as error:
        problem = f"{error.state}. {error.remedy}"
        raise CallerError(
            f"nodes file {origin}",
            f"is not valid: url {error.subject} of node {name!r} {problem}",
        ) from error
    except CallerError as error:
        raise CallerError(
            f"nodes file {origin}",
            f"is not valid: {error.subject} {error.state}",
            error.remedy,
        ) from error
    return DesiredNode(name=name, url=url, settings=settings)


def _settings(origin: str, name: str, table: Mapping[str, object]) -> NodeSettings:
    chosen = {key: table[key] for key in table.keys() - {"url", "max_model"}}
    if "max_model" in table:
        size = parse_size(str(table["max_model"]))
        if size is None:
            raise _invalid(origin, name, "max_model", "must be a size, such as 40GB")
        chosen["max_model_bytes"] = size
    try:
        return msgspec.convert(chosen, NodeSettings)
    except msgspec.ValidationError as error:
        raise _invalid(
            origin,
            name,
            "",
            f"has invalid settings: {violation(str(error)).text('a value')}",
        ) from error


def _invalid(origin: str, node: str, key: str, problem: str) -> CallerError:
    where = f"key {key!r} of node {node!r}" if key else f"node {node!r}"
    return CallerError(f"nodes file {origin}", f"is not valid: {where} {problem}")


def steps(
    desired: Sequence[DesiredNode], current: Iterable[NodeStatus], *, prune: bool
) -> list[NodeStep]:
    """Return the changes from the managed nodes to the desired ones; make none.

    Args:
        desired: The nodes to have.
        current: The managed nodes of the log.
        prune: Also remove the nodes that were added and are not desired.

    Raises:
        CallerError: Two nodes would have the same address.
    """
    known = {node.name: node for node in current}
    found = [step for one in desired for step in _steps(one, known.get(one.name))]
    wanted = {one.name for one in desired}
    kept = [
        (name, node.url)
        for name, node in known.items()
        if name not in wanted and node.url and not (prune and node.managed)
    ]
    _check_addresses([*kept, *((one.name, one.url) for one in desired)])
    if prune:
        found += [
            NodeStep(action=NodeAction.REMOVE, node=name)
            for name, node in sorted(known.items())
            if name not in wanted and node.managed
        ]
    return found


def _check_addresses(nodes: Iterable[tuple[str, str]]) -> None:
    """Check that each node has an address of its own.

    Raises:
        CallerError: Two have the same.
    """
    names: dict[object, str] = {}
    for name, url in nodes:
        other = names.setdefault(identity(url), name)
        if other != name:
            raise CallerError(
                url,
                f"would be the address of the nodes {other!r} and {name!r}",
                "Give each node its own address, or remove one of the nodes",
            )


def _steps(one: DesiredNode, known: NodeStatus | None) -> list[NodeStep]:
    found = []
    if known is None or not known.url:
        return [_step(NodeAction.ADD, one, one.settings)]
    if not same_server(known.url, one.url):
        found.append(_step(NodeAction.MOVE, one))
    if not known.managed:
        found.append(_step(NodeAction.ADD, one, one.settings))
    elif known.settings != one.settings:
        found.append(_step(NodeAction.CONFIGURE, one, one.settings))
    return found


def _step(
    action: NodeAction, one: DesiredNode, settings: NodeSettings | None = None
) -> NodeStep:
    return NodeStep(action=action, node=one.name, url=one.url, settings=settings)
