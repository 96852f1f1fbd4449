"""Names of streams: one stream per model on a node, and one per node.

``model/<node>/<name>`` and ``node/<node>``. A node's name has no slash, a model's
name may have several, so the first two slashes part a stream's name exactly.
"""

from __future__ import annotations

import re
from typing import NamedTuple, NewType

from herdbook.events.errors import CallerError

StreamName = NewType("StreamName", str)
"""The name of a stream; made by the functions of this module."""

MODEL_PREFIX = "model/"
"""What the names of all models' streams begin with."""

NODE_PREFIX = "node/"
"""What the names of all nodes' streams begin with."""

LONGEST = 512
"""Characters that a stream's name may have: Ollama's own longest name is 593
bytes, of which 350 are a host's; nothing real comes near."""

LONGEST_NODE = 64
"""Characters that a node's name may have."""

_NODE = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{LONGEST_NODE - 1}}}")


class ModelKey(NamedTuple):
    """A model on a node.

    Attributes:
        node: Name of the node, as we call it.
        name: Canonical name of the model.
    """

    node: str
    name: str


def check_node(node: str) -> str:
    """Return the node's name as it is.

    Raises:
        CallerError: It is no name: letters, digits, ``.``, ``_`` and ``-``, at
            most 64, the first a letter or digit.
    """
    if not _NODE.fullmatch(node):
        raise CallerError(
            f"node name {node[:80]!r}",
            "is not a name",
            "Use at most 64 letters, digits, '.', '_' or '-', "
            "beginning with a letter or digit",
        )
    return node


def model_stream(node: str, name: str) -> StreamName:
    """Return the stream of the model ``name`` on ``node``."""
    return StreamName(f"{MODEL_PREFIX}{node}/{name}")


def node_stream(node: str) -> StreamName:
    """Return the stream of the node itself."""
    return StreamName(f"{NODE_PREFIX}{node}")


def model_of(stream: str) -> ModelKey | None:
    """Return which model's stream this is; None for any other stream."""
    kind, _, rest = stream.partition("/")
    node, slash, name = rest.partition("/")
    is_model = kind == "model" and node and slash and name
    return ModelKey(node, name) if is_model else None


def node_of(stream: str) -> str | None:
    """Return which node's own stream this is; None for any other stream."""
    kind, _, node = stream.partition("/")
    return node if kind == "node" and node and "/" not in node else None


def check_stream(stream: str) -> StreamName:
    """Return the name as it is.

    Raises:
        CallerError: It is empty, longer than ``LONGEST``, or has characters that
            do not print.
    """
    if not stream or len(stream) > LONGEST or not stream.isprintable():
        raise CallerError(
            f"stream name {stream[:80]!r}",
            "is not a name",
            f"Use 1 to {LONGEST} printable characters",
        )
    return StreamName(stream)
