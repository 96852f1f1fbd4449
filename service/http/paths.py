"""Model names in paths: encode a name with slashes as one path segment.

Everything between ``/models/`` and a known last segment such as ``history`` is one
model name. Its slashes are percent-encoded before Litestar splits the path. A name
that ends in such a word itself must be written with its tag, or with ``%2F``.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, unquote

from herdbook.service.http.asgi import App, Receive, Scope, Send

ROOTS: Final = ("/v1/models/", "/models/")
"""The paths that are followed by a model name."""

WORDS: Final = frozenset(
    {
        *("history", "configuration", "uses", "cost", "statistics", "why"),
        *("pull", "update", "load", "unload", "delete", "cancel", "use"),
    }
)
"""The path segments that may follow a model name."""


def segment(name: str) -> str:
    """Percent-encode a model name as one path segment."""
    return quote(name, safe=":")


def one_segment(path: str) -> str:
    """Return a percent-encoded path with the model name as one segment."""
    root = next((root for root in ROOTS if path.startswith(root)), None)
    if root is None:
        return path
    rest = path.removeprefix(root)
    name, slash, word = rest.rpartition("/")
    if not slash or word not in WORDS:
        name, slash, word = rest, "", ""
    return f"{root}{segment(unquote(name))}{slash}{word}"


class NamesInPaths:
    """ASGI middleware that applies ``one_segment`` to every request."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Rewrite the path and call the application."""
        if scope["type"] == "http":
            raw = scope["raw_path"].decode("latin-1")
            path = one_segment(raw)
            if path.startswith(ROOTS):
                # Still encoded: Litestar splits the path, the handler decodes the name.
                scope = {**scope, "path": path, "raw_path": path.encode("latin-1")}
        await self._app(scope, receive, send)
