"""Answers that list models, as the gateway changes them: roles, and limited tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from herdbook.core import ModelRole
from herdbook.core.models.names import same_name
from herdbook.gateway.protocol.json_bodies import Fields, fields_of, items_of, text_of
from herdbook.gateway.rewriting.requests import ROLE

PS: Final = "/api/ps"
"""The path that lists the loaded models; it never contains roles."""

LISTS: Final = {"/api/tags": "models", PS: "models", "/v1/models": "data"}
"""Paths that list models, and the field of the answer with the list."""

_NAMES: Final = ("name", "model", "id")


def changed_list(
    path: str,
    body: bytes,
    *,
    recommend: Callable[[str], str | None] | None,
    allowed: Callable[[str], bool],
) -> bytes:
    """Return the body of a list of models with roles, and without other models.

    Each role is an entry like that of the model which answers it, under the name
    ``role:<role>``. Entries that are not changed keep their bytes. An entry without a
    readable name is kept if the client may use any model.

    Args:
        path: A path of ``LISTS``.
        body: The body of the server's answer.
        recommend: Returns the model that answers for a role; None to add no roles.
        allowed: Whether the client may use a model.
    """
    field = LISTS[path]
    try:
        answer, named = _named(field, body)
    except (msgspec.DecodeError, KeyError):  # not a list: the client shows what it is
        return body
    named = [(name, entry) for name, entry in named if allowed(name)]
    roles = [] if recommend is None else _roles(recommend, named)
    answer[field] = msgspec.Raw(
        msgspec.json.encode([*(entry for _, entry in named), *roles])
    )
    return msgspec.json.encode(answer)


def merged_list(path: str, bodies: Sequence[bytes]) -> bytes:
    """Return the lists of several nodes as one; entries keep their bytes.

    A model that several nodes have is listed once, and once for each node where it is
    loaded. A body that is not a list is left out.

    Args:
        path: A path of ``LISTS``.
        bodies: The bodies of the answers; the first list has the other fields.
    """
    field = LISTS[path]
    merged: dict[str, msgspec.Raw] = {}
    entries: list[msgspec.Raw] = []
    seen: set[str] = set()
    for body in bodies:
        try:
            answer, named = _named(field, body)
        except (msgspec.DecodeError, KeyError):
            continue
        merged = merged or answer
        entries += [entry for name, entry in named if path == PS or name not in seen]
        seen |= {name for name, _ in named if name}
    merged[field] = msgspec.Raw(msgspec.json.encode(entries))
    return msgspec.json.encode(merged)


def _named(field: str, body: bytes) -> tuple[Fields, list[tuple[str, msgspec.Raw]]]:
    """Return the fields of an answer, and the entries of its list with their names.

    Raises:
        msgspec.DecodeError: The body is not an object with a list.
        KeyError: The field is missing.
    """
    answer = fields_of(body)
    listed = answer[field]
    entries = [] if bytes(listed).strip() == b"null" else items_of(listed)
    return answer, [(_name(entry), entry) for entry in entries]


def _roles(
    recommend: Callable[[str], str | None], named: list[tuple[str, msgspec.Raw]]
) -> list[dict[str, Any]]:
    """Return an entry for each role that a listed model fits."""
    found = []
    for role in ModelRole:
        chosen = recommend(role)
        if chosen is None:
            continue
        for name, entry in named:
            if same_name(name, chosen):
                fields: dict[str, Any] = dict(fields_of(entry))
                renamed = dict.fromkeys(fields.keys() & {*_NAMES}, f"{ROLE}{role}")
                found.append(fields | renamed)
                break
    return found


def _name(entry: msgspec.Raw) -> str:
    """Return the name in an entry; empty if it has none that can be read."""
    try:
        fields = fields_of(entry)
        return text_of(next((fields[key] for key in _NAMES if key in fields), b'""'))
    except msgspec.DecodeError:
        return ""
