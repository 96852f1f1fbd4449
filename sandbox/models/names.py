"""Read model names as the server does.

Invariant: a name is either valid in all its parts or refused as a whole, and two
spellings of one model (case aside, defaults left out or not) mean one entry.
"""

from __future__ import annotations

import re
from typing import Final, Self

import msgspec

DEFAULT_HOST: Final = "registry.ollama.ai"
DEFAULT_NAMESPACE: Final = "library"
DEFAULT_TAG: Final = "latest"

_PARTS: Final = {
    "host": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}"),
    "namespace": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}"),
    "model": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"),
    "tag": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"),
}


class Name(msgspec.Struct, frozen=True, kw_only=True):
    """A model's name in full, spelled as it was given."""

    host: str = DEFAULT_HOST
    namespace: str = DEFAULT_NAMESPACE
    model: str
    tag: str = DEFAULT_TAG

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read a name; None if it is not valid."""
        rest = text
        parts: dict[str, str] = {}
        if ":" in rest.rpartition("/")[2]:
            rest, _, parts["tag"] = rest.rpartition(":")
        rest, slash, parts["model"] = rest.rpartition("/")
        if slash:
            rest, slash, parts["namespace"] = rest.rpartition("/")
            if slash:
                parts["host"] = rest.partition("://")[2] or rest
        valid = all(_PARTS[part].fullmatch(value) for part, value in parts.items())
        return cls(**parts) if valid else None

    @property
    def display(self) -> str:
        """The shortest spelling that means the same; it always has a tag."""
        if self.host.lower() != DEFAULT_HOST:
            return self.full
        if self.namespace.lower() != DEFAULT_NAMESPACE:
            return f"{self.namespace}/{self.model}:{self.tag}"
        return f"{self.model}:{self.tag}"

    @property
    def full(self) -> str:
        """All four parts."""
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"

    @property
    def key(self) -> tuple[str, ...]:
        """What spellings of one model have in common."""
        parts = (self.host, self.namespace, self.model, self.tag)
        return tuple(part.lower() for part in parts)
