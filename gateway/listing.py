"""Answers that list models, as the gateway changes them: roles, and limited tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from herdbook.core import ModelRole, ReadModel
from herdbook.core.models.names import same_name
from herdbook.gateway.rewriting import ROLE

PS: Final = "/api/ps"
"""The path that lists the loaded models; it never contains roles."""

LISTS: Final = {"/api/tags": "models", PS: "models", "/v1/models": "data"}
"""Paths that list models, and the field of the answer with the list."""

_NAMES: Final = ("name", "model", "id")


def changed_list(
    path: str,
    body: bytes,
    *,
    read_model: ReadModel | None,
    allowed: Callable[[str], bool],
) -> bytes:
    """Return the body of a list of models with roles, and without other models.

    Each role is an entry like that of the model which answers it, under the name
    ``role:<role>``. Entries that are not changed keep their bytes.

    Args:
        path: A path of ``LISTS``.
        body: The body of the server's answer.
        read_model: The models, to add the roles; None to add none.
        allowed: Whether the client may use a model.
    """
    field = LISTS[path]
    try:
        answer = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        entries = msgspec.json.decode(answer[field], type=list[msgspec.Raw] | None)
        named = [(_name(entry), entry) for entry in entries or []]
    except (msgspec.MsgspecError, KeyError):  # not a list: the client shows what it is
        return body
    named = [(name, entry) for name, entry in named if allowed(name)]
    roles = [] if read_model is None else _roles(read_model, named)
    answer[field] = msgspec.Raw(
        msgspec.json.encode([*(entry for _, entry in named), *roles])
    )
    return msgspec.json.encode(answer)


def _roles(
    read_model: ReadModel, named: list[tuple[str, msgspec.Raw]]
) -> list[dict[str, Any]]:
    """Return an entry for each role that a listed model fits."""
    found = []
    for role in ModelRole:
        chosen = read_model.recommend(role)
        if chosen is None:
            continue
        for name, entry in named:
            if same_name(name, chosen.name):
                fields = msgspec.json.decode(entry, type=dict[str, Any])
                renamed = dict.fromkeys(fields.keys() & {*_NAMES}, f"{ROLE}{role}")
                found.append(fields | renamed)
                break
    return found


def _name(entry: msgspec.Raw) -> str:
    fields = msgspec.json.decode(entry, type=dict[str, msgspec.Raw])
    raw = next((fields[key] for key in _NAMES if key in fields), b'""')
    return msgspec.json.decode(raw, type=str)
