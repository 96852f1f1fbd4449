"""Types and helpers for ASGI scopes, used by the middleware around Litestar."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
"""The ASGI scope of a request: method, path, headers, client address."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

App = Callable[[Any, Any, Any], Awaitable[None]]
"""An ASGI application. Untyped arguments: Litestar and uvicorn each have own types."""

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""The methods that never change anything."""


def header_values(scope: Mapping[str, Any], name: str) -> list[str]:
    """Return all values of a header, in the order of the request."""
    wanted = name.encode("ascii")
    return [
        value.decode("latin-1").strip()
        for key, value in scope["headers"]
        if key == wanted
    ]


def header_value(scope: Mapping[str, Any], name: str) -> str | None:
    """Return a header, or None; repeated headers are joined by commas (RFC 9110)."""
    values = header_values(scope, name)
    return ", ".join(values) if values else None


def address_of(scope: Mapping[str, Any]) -> str:
    """Return the client address of a request; empty if it has none."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def is_below(path: str, *tops: str) -> bool:
    """Return whether a path equals one of several paths or is below one."""
    return any(path == top or path.startswith(f"{top}/") for top in tops)
