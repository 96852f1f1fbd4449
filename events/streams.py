"""Names of streams: one stream per model on a node, and one per node.

``model/<node>/<name>`` and ``node/<node>``. A node's name has no slash, a model's
name may have several, so the first two slashes split a stream's name exactly.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple, NewType

from herdbook.events.errors import CallerError

StreamName = NewType("StreamName", str)
"""The name of a stream, as returned by the functions of this module."""

MODEL_PREFIX = "model/"
"""Prefix of the streams of models."""

NODE_PREFIX = "node/"
"""Prefix of the streams of nodes."""

LONGEST = 512
"""Maximum length of a stream name, in characters. Ollama allows 593 bytes for a
model name, 350 of them for the host; real names are far shorter."""

LONGEST_NODE = 64
"""Maximum length of a node name, in characters."""

_NODE = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{LONGEST_NODE - 1}}}")


class ModelKey(NamedTuple):
    """A model on a node.

    Attributes:
        node: Name of the node in Herdbook.
        name: Canonical name of the model.
    """

    node: str
    name: str


def check_node(node: str) -> str:
    """Check a node name and return it unchanged.

    Raises:
        CallerError: The name is not 1 to 64 letters, digits, ``.``, ``_`` or ``-``
            with a letter or digit first.
    """
    if not _NODE.fullmatch(node):
        raise CallerError(
            f"node name {node[:80]!r}",
            "is not valid",
            "Use up to 64 letters, digits, '.', '_' or '-', "
            "starting with a letter or digit",
        )
    return node


@lru_cache(4096)
def model_stream(node: str, name: str) -> StreamName:
    """Return the stream of a model on a node."""
    return StreamName(f"{MODEL_PREFIX}{node}/{name}")


def node_stream(node: str) -> StreamName:
    """Return the stream of a node."""
    return StreamName(f"{NODE_PREFIX}{node}")


@lru_cache(4096)
def model_of(stream: str) -> ModelKey | None:
    """Return the model of a stream; None for any other stream."""
    kind, _, rest = stream.partition("/")
    node, slash, name = rest.partition("/")
    is_model = kind == "model" and node and slash and name
    return ModelKey(node, name) if is_model else None


def node_of(stream: str) -> str | None:
    """Return the node of a node's own stream; None for any other stream."""
    kind, _, node = stream.partition("/")
    return node if kind == "node" and node and "/" not in node else None


def is_of_node(stream: str, node: str) -> bool:
    """Return whether a stream is that of a node, or of a model on it."""
    model = model_of(stream)
    return model.node == node if model else node_of(stream) == node


@lru_cache(4096)
def check_stream(stream: str) -> StreamName:
    """Check a stream name and return it unchanged.

    Raises:
        CallerError: The name is empty, longer than ``LONGEST``, or has characters
            that do not print.
    """
    if not stream or len(stream) > LONGEST or not stream.isprintable():
        raise CallerError(
            f"stream name {stream[:80]!r}",
            "is not valid",
            f"Use 1 to {LONGEST} printable characters",
        )
    return StreamName(stream)
