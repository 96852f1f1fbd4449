"""Parse event types as people type them: ``ModelDeleted`` or ``deleted``."""

from __future__ import annotations

from herdbook.core.suggestions import did_you_mean
from herdbook.events.facts import FACTS

_PREFIXES = ("Model", "Pull")
_TYPES = sorted(fact.__name__ for fact in FACTS)
_SHORT_NAMES = {
    type_.removeprefix(prefix): type_
    for type_ in _TYPES
    for prefix in _PREFIXES
    if type_.startswith(prefix)
    and sum(other.endswith(type_.removeprefix(prefix)) for other in _TYPES) == 1
}
"""Types by their names without prefix, where no other type ends with the same name."""

_BY_TEXT = {
    name.lower(): type_
    for name, type_ in (*_SHORT_NAMES.items(), *zip(_TYPES, _TYPES, strict=True))
}


def parse_event_type(text: str) -> str | None:
    """Return the event type that a text names, or None.

    Case does not matter. The prefix ``Model`` or ``Pull`` is optional where the rest
    is unambiguous.
    """
    return _BY_TEXT.get(text.strip().lower())


def event_type_remedy(text: str) -> str:
    """Return the nearest event type for an unknown one, or the list of all types."""
    nearest = did_you_mean(text, (*_SHORT_NAMES, *_TYPES)).strip()
    return nearest or f"Types: {', '.join(_TYPES)}"
