"""ASGI, as far as what stands around the application needs it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
"""What a request is: method, path, headers, who sent it."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

App = Callable[[Any, Any, Any], Awaitable[None]]
"""An application; each framework has narrower types of its own for the three."""

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""The methods that change nothing."""


def header_values(scope: Mapping[str, Any], name: str) -> list[str]:
    """Return all values of a header, in the order in which they came."""
    wanted = name.encode("ascii")
    return [
        value.decode("latin-1").strip()
        for key, value in scope["headers"]
        if key == wanted
    ]


def header_value(scope: Mapping[str, Any], name: str) -> str | None:
    """Return a header; None if it is missing; several are joined, as HTTP says."""
    values = header_values(scope, name)
    return ", ".join(values) if values else None


def address_of(scope: Mapping[str, Any]) -> str:
    """Return the address that a request came from; empty if there is none."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def is_below(path: str, *tops: str) -> bool:
    """Return whether a path is one of those, or below one."""
    return any(path == top or path.startswith(f"{top}/") for top in tops)
