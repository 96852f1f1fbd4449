"""Models' names in paths: they have slashes, and a path is parted at slashes.

What stands between ``/models/`` and a known last word is one name, however many
slashes it has: it is put into one segment before the framework sees it. A name that
itself ends in such a word is written with its tag, or with ``%2F`` for its slashes.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, unquote

from herdbook.service.http.asgi import App, Receive, Scope, Send

ROOTS: Final = ("/v1/models/", "/models/")
"""Where names begin."""

WORDS: Final = frozenset(
    {
        *("history", "configuration", "uses", "cost", "statistics", "why"),
        *("pull", "update", "load", "unload", "delete", "cancel", "use"),
    }
)
"""What may follow a name."""


def segment(name: str) -> str:
    """Return a model's name as one segment of a path."""
    return quote(name, safe=":")


def one_segment(path: str) -> str:
    """Return a path, still percent-encoded, with the model's name as one segment."""
    root = next((root for root in ROOTS if path.startswith(root)), None)
    if root is None:
        return path
    rest = path.removeprefix(root)
    name, slash, word = rest.rpartition("/")
    if not slash or word not in WORDS:
        name, slash, word = rest, "", ""
    return f"{root}{segment(unquote(name))}{slash}{word}"


class NamesInPaths:
    """The middleware that does so."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Rewrite the path, and go on."""
        if scope["type"] == "http":
            raw = scope["raw_path"].decode("latin-1")
            path = one_segment(raw)
            if path.startswith(ROOTS):
                # Still encoded: the framework parts it, the handler decodes the name.
                scope = {**scope, "path": path, "raw_path": path.encode("latin-1")}
        await self._app(scope, receive, send)
