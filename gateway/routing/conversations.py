"""Which node answered a conversation before: its server has the prompt cached."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Final

import msgspec

from herdbook.gateway.protocol.endpoints import Effect
from herdbook.gateway.protocol.json_bodies import fields_of, items_of, text_of
from herdbook.gateway.routing.upstreams import IncomingRequest

CONVERSATIONS: Final = 10_000
"""Conversations whose node is remembered; the oldest are forgotten first."""

_OPENING: Final = 2_000
"""Bytes of each message that identify a conversation."""

_MOST_MESSAGES: Final = 8
"""Messages that identify a conversation at most."""

_OPENINGS: Final = ("messages", "system", "instructions", "prompt", "input")
"""Fields that a request of a conversation repeats at its beginning."""


class Conversations:
    """Remembers which node answered each of the newest conversations."""

    def __init__(self) -> None:
        self._nodes: OrderedDict[bytes, str] = OrderedDict()

    def node_of(self, key: bytes) -> str | None:
        """Return the node that answered a conversation; None if that is not known."""
        return self._nodes.get(key)

    def remember(self, key: bytes, node: str) -> None:
        """Remember the node that answers a conversation."""
        self._nodes[key] = node
        self._nodes.move_to_end(key)
        if len(self._nodes) > CONVERSATIONS:
            self._nodes.popitem(last=False)


def conversation_of(model: str, incoming: IncomingRequest) -> bytes | None:
    """Return what identifies a conversation: how it begins, its model and client.

    None for a request that is none. All requests of a conversation begin alike, and so
    share the prompt that the server has cached.
    """
    if incoming.endpoint.effect is not Effect.USE:
        return None
    fields = incoming.fields
    try:
        pieces = [
            piece
            for name in _OPENINGS
            if name in fields
            for piece in _beginning(fields[name])
        ]
    except msgspec.MsgspecError:
        return None
    if not pieces:
        return None
    digest = hashlib.blake2b(digest_size=16)
    for piece in (model.encode(), incoming.caller.name.encode(), *pieces):
        digest.update(len(piece).to_bytes(4))
        digest.update(piece)
    return digest.digest()


def _beginning(value: msgspec.Raw) -> list[bytes]:
    """Return the messages up to the first one of the user, or the start of a text."""
    raw = bytes(value).lstrip()
    if not raw.startswith(b"["):
        return [raw[:_OPENING]]
    found = []
    for message in items_of(raw):
        found.append(bytes(message)[:_OPENING])
        if _role_of(message) == "user" or len(found) == _MOST_MESSAGES:
            break
    return found


def _role_of(message: msgspec.Raw) -> str:
    """Return who wrote a message; "user" for a plain text."""
    if not bytes(message).lstrip().startswith(b"{"):
        return "user"
    return text_of(fields_of(message).get("role", b'""'))
