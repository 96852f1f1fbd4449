"""Differences between two read models, as rows of short texts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from herdbook.core.history.diff import (
    Change,
    Difference,
    ModelDifference,
    Presence,
)
from herdbook.events.facts import Setting
from herdbook.presentation.wording import NOTHING
from herdbook.projections.sentences import bytes_text, setting_text

_SHORT = frozenset({"digest", "weights"})
_LABELS = {
    "context_trained": "trained context",
    "remote_host": "remote host",
    "runner.context_length": "context in effect",
    "runner.name": "loaded as",
    "runner.size_bytes": "memory",
    "runner.size_vram_bytes": "GPU memory",
    "server_version": "version",
    "size_bytes": "size",
    "url": "address",
}
"""Labels of the fields whose names are not words."""

_PRESENCE = {Presence.APPEARED: "added", Presence.VANISHED: "deleted"}


class DifferenceRow(NamedTuple):
    """A field that differs.

    Attributes:
        subject: Name of a model, ``server``, or a role.
        field: Name of the field.
        before: Earlier value, as text.
        after: Later value, as text.
        model: Name of the model, if the row is about one.
    """

    subject: str
    field: str
    before: str
    after: str
    model: str | None = None


def rows_of(found: Difference) -> Iterator[DifferenceRow]:
    """Yield the differences of the server, the models and the roles."""
    for change in found.node:
        yield _row("server", _label(change.fact), _text(change.was), _text(change.now))
    for model in found.models:
        yield from _of_model(model)
    for role in found.roles:
        name = role.role.words
        yield _row(f"role {name}", "first choice", role.was or "", role.now or "")


def _of_model(model: ModelDifference) -> Iterator[DifferenceRow]:
    """Yield the changes of a model; a summary if it was added or removed."""
    name = model.name
    if model.presence is not Presence.STAYED:
        changes = {change.fact: change for change in model.changes}
        was, now = (_summary(changes, "was"), _summary(changes, "now"))
        yield _row(name, _PRESENCE[model.presence], was, now, model=name)
        return
    for change in model.changes:
        was, now = _value(change.fact, change.was), _value(change.fact, change.now)
        yield _row(name, _label(change.fact), was, now, model=name)


def _summary(changes: dict[str, Change], side: str) -> str:
    """Return size and digest of a model before (``was``) or after (``now``)."""
    shown = (changes[fact] for fact in ("size_bytes", "digest") if fact in changes)
    values = ((change.fact, getattr(change, side)) for change in shown)
    return ", ".join(_value(fact, value) for fact, value in values if value is not None)


def _row(
    subject: str, field: str, before: str, after: str, *, model: str | None = None
) -> DifferenceRow:
    return DifferenceRow(subject, field, before or NOTHING, after or NOTHING, model)


def _label(fact: str) -> str:
    kind, dot, name = fact.partition(".")
    words = {"settings": "setting", "capabilities": "capability"}
    return f"{words[kind]} {name}" if dot and kind in words else _LABELS.get(fact, fact)


def _value(fact: str, value: Setting) -> str:
    if isinstance(value, str) and fact in _SHORT:
        return value[:12]
    if isinstance(value, int) and fact.endswith("_bytes"):
        return bytes_text(value)
    if fact == "state":
        return _text(value).replace("_", " ")
    return _text(value)


def _text(value: Setting) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return NOTHING if value is None else setting_text(value)
