"""Parse event types as people type them: ``ModelDeleted``, ``deleted``, ``delete``."""

from __future__ import annotations

from typing import Final

from herdbook.core.errors.suggestions import did_you_mean
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

_WORDS: Final = {
    "pulled": ("PullCompleted",),
    "pull": tuple(each for each in _TYPES if each.startswith("Pull")),
    "update": tuple(each for each in _TYPES if each.startswith("Update")),
    "updated": ("ModelUpdated",),
    "load": (
        "ModelLoaded",
        *(each for each in _TYPES if each.startswith(("Load", "Reload"))),
    ),
    "reload": (
        "RunnerChanged",
        *(each for each in _TYPES if each.startswith("Reload")),
    ),
    "unload": ("ModelUnloaded",),
    "delete": ("ModelDeleted",),
    "removed": ("ModelDeleted",),
    "use": ("ModelUsed", "UseFailed"),
    "found": ("ModelDiscovered",),
    "config": ("ConfigurationChanged",),
    "configured": ("ConfigurationChanged",),
    "settings": ("ConfigurationChanged",),
    "completed": tuple(each for each in _TYPES if each.endswith("Completed")),
    "failed": tuple(each for each in _TYPES if each.endswith("Failed")),
    "cancelled": tuple(each for each in _TYPES if each.endswith("Cancelled")),
    "interrupted": tuple(each for each in _TYPES if each.endswith("Interrupted")),
}
"""Other words for types, such as the name of the command that records them."""

_BY_TEXT: Final = {
    **{word: tuple(t for t in types if t in _TYPES) for word, types in _WORDS.items()},
    **{name.lower(): (type_,) for name, type_ in _SHORT_NAMES.items()},
    **{type_.lower(): (type_,) for type_ in _TYPES},
}


def parse_event_type(text: str) -> tuple[str, ...]:
    """Return the event types that a text names; empty for none.

    Case, spaces, ``-`` and ``_`` do not matter. The prefix ``Model`` or ``Pull`` is
    optional where the rest is unambiguous. A word such as ``pull`` or ``failed`` names
    several types.
    """
    plain = text.strip().lower()
    for separator in ("_", "-", " "):
        plain = plain.replace(separator, "")
    return _BY_TEXT.get(plain, ())


def event_type_remedy(text: str) -> str:
    """Return the nearest event type for an unknown one, or the list of all types."""
    nearest = did_you_mean(text, (*_SHORT_NAMES, *_TYPES, *_WORDS)).strip()
    return nearest or f"Types: {', '.join(_TYPES)}"
