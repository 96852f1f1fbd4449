"""The paths of Ollama's API: which form errors have, which ones use a model.

A path that is not listed here is relayed like any other, is not recorded, and needs
the role ``admin`` unless it is only read. Source: ``server/routes.go`` of Ollama, the
last time on 2026-11-28.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final
from urllib.parse import unquote_to_bytes

import msgspec


class Form(Enum):
    """The API whose form a request has, and so the errors of the gateway."""

    OLLAMA = auto()
    OPENAI = auto()
    ANTHROPIC = auto()


class Effect(Enum):
    """What a request does to models.

    ``NONE`` changes nothing, ``USE`` uses a model, and ``CHANGE`` adds, changes or
    removes one.
    """

    NONE = auto()
    USE = auto()
    CHANGE = auto()


class Endpoint(msgspec.Struct, frozen=True):
    """What the gateway knows about the path of a request.

    Attributes:
        path: The path without its query, percent-encoding decoded.
        form: The API that it belongs to.
        effect: What it does to models.
        role: The role that a client needs.
    """

    path: str
    form: Form
    effect: Effect
    role: str


READ: Final = "read"
OPERATE: Final = "operate"
ADMIN: Final = "admin"
ROLES: Final = (READ, OPERATE, ADMIN)
"""Each role allows what those before it allow."""

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing."""

MODEL_CARDS: Final = "/v1/models/"
"""Prefix of the paths that each describe one model."""

_USES: Final = frozenset(
    {
        *("/api/generate", "/api/chat", "/api/embed", "/api/embeddings"),
        *("/v1/chat/completions", "/v1/completions", "/v1/embeddings"),
        *("/v1/messages", "/v1/responses", "/v1/systemone"),
        *("/v1/images/generations", "/v1/images/edits"),
        "/v1/audio/transcriptions",
    }
)
NO_TEXT: Final = frozenset(
    {
        *("/api/embed", "/api/embeddings", "/v1/embeddings", "/v1/systemone"),
        *("/v1/images/generations", "/v1/images/edits"),
        "/v1/audio/transcriptions",
    }
)
"""Paths whose answers are not streams of tokens."""

FORMS: Final = frozenset({"/v1/audio/transcriptions"})
"""Paths whose requests are forms (``multipart/form-data``) instead of JSON."""

LOADS: Final = frozenset({"/api/generate", "/api/chat", "/api/embed"})
"""Paths that only load a model, or unload it, if the request has no text."""

SHOWS: Final = frozenset({"/api/show"})
"""Paths that show the model which the body of the request names."""

NAMING: Final = SHOWS | {"/api/push", "/v1/messages/count_tokens"}
"""Paths that neither use nor change a model, and name one in the request's body."""

_READS: Final = frozenset({"/api/show", "/v1/messages/count_tokens"})
_OPERATES: Final = frozenset(
    {"/api/experimental/web_search", "/api/experimental/web_fetch"}
)
"""Paths that use the account of the server at ollama.com, and no model."""

_CHANGES: Final = {
    ("POST", "/api/pull"): OPERATE,
    ("DELETE", "/api/delete"): ADMIN,
    ("POST", "/api/create"): ADMIN,
    ("POST", "/api/copy"): ADMIN,
}


def form_of(path: str) -> Form:
    """Return the API that a path belongs to."""
    if path == "/v1/messages" or path.startswith("/v1/messages/"):
        return Form.ANTHROPIC
    return Form.OPENAI if path.startswith("/v1/") else Form.OLLAMA


def lines_per_piece(endpoint: Endpoint) -> tuple[int, int]:
    """Return how a streamed answer consists of pieces with text.

    Returns:
        The number of lines of a piece, and of pieces before the first one with text.
    """
    if endpoint.path == "/v1/responses":
        return 3, 4
    if endpoint.form is Form.ANTHROPIC:
        return 3, 2
    return (2, 0) if endpoint.form is Form.OPENAI else (1, 0)


def endpoint_of(method: str, target: bytes) -> Endpoint:
    """Return what is known about a request.

    Args:
        method: The method.
        target: The path with its query, as received.
    """
    raw = target.partition(b"?")[0]
    known = _KNOWN.get((method, raw))
    return known if known is not None else _endpoint(method, raw)


def _endpoint(method: str, raw: bytes) -> Endpoint:
    path = unquote_to_bytes(raw).decode("utf-8", "replace")
    form = form_of(path)
    if method == "POST" and path in _USES:
        return Endpoint(path, form, Effect.USE, READ)
    if (method, path) in _CHANGES:
        return Endpoint(path, form, Effect.CHANGE, _CHANGES[method, path])
    if method in SAFE_METHODS or (method == "POST" and path in _READS):
        return Endpoint(path, form, Effect.NONE, READ)
    operates = method == "POST" and path in _OPERATES
    return Endpoint(path, form, Effect.NONE, OPERATE if operates else ADMIN)


_KNOWN: Final = {
    ("POST", path.encode()): _endpoint("POST", path.encode()) for path in _USES
}
"""The endpoints of most requests, so that their paths are not parsed each time."""
