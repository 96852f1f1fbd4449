"""Requests that the gateway changes: roles, fallback lists and settings of models.

A request is changed only where that is needed, and every value that is not changed
keeps its bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

import msgspec

from herdbook.core import InvalidNameError, ReadModel, UnknownRoleError
from herdbook.core.models.configuration import options_for
from herdbook.gateway.answers import Refusal
from herdbook.gateway.endpoints import Effect, Endpoint, Form
from herdbook.gateway.heads import Headers

ROLE: Final = "role:"
"""The prefix of a role that is requested instead of a model."""

_TOP_LEVEL: Final = {
    "/v1/chat/completions": ("temperature", "top_p", "seed"),
    "/v1/completions": ("temperature", "top_p", "seed"),
    "/v1/responses": ("temperature", "top_p"),
    "/v1/messages": ("temperature", "top_p", "top_k"),
}
"""Options that the compatible APIs have too, by endpoint, with the same meaning."""

_NAMES: Final = ("model", "name", "source", "destination")
"""Fields of a request that name a model."""

_Body: TypeAlias = dict[str, msgspec.Raw]

_decode_body = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_text = msgspec.json.Decoder(str).decode
_encode = msgspec.json.encode


class Rewritten(NamedTuple):
    """A request that was changed.

    Attributes:
        body: The new body.
        model: Name of the model that the server is asked for.
        role: The role that was requested; empty if none was.
        headers: Headers of the answer that report the changes.
    """

    body: bytes
    model: str
    role: str
    headers: Headers


class Rewriter:
    """Changes requests by what the log says about the models.

    Args:
        latest: Returns the newest read model without reading the log.
    """

    def __init__(self, latest: Callable[[], ReadModel]) -> None:
        self._latest = latest

    def latest(self) -> ReadModel:
        """Return the newest read model without reading the log."""
        return self._latest()

    def rewrite(self, endpoint: Endpoint, body: bytes) -> Rewritten | None:
        """Return the changed request; None if it can pass as it is.

        Raises:
            Refusal: No model fits what is requested.
        """
        try:
            fields = _decode_body(body)
            asked = _decode_text(fields.get("model", b"null"))
        except msgspec.DecodeError:  # the server reports what is wrong
            return None
        read_model = self._latest()
        headers: Headers = []
        model, role = asked, ""
        if asked.startswith(ROLE):
            role = asked.removeprefix(ROLE)
            model, reason = _by_role(read_model, role)
            headers = _chosen(model, reason)
        elif "," in asked:
            model = _first_present(read_model, asked)
            headers = _chosen(model, f"first of {asked}")
        if model != asked:
            fields["model"] = msgspec.Raw(_encode(model))
        if endpoint.effect is Effect.USE and (
            applied := _apply_settings(read_model, endpoint, model, fields)
        ):
            headers.append((b"X-Herdbook-Settings", _header(", ".join(applied))))
        if not headers:
            return None
        return Rewritten(_encode(fields), model, role, headers)


def _by_role(read_model: ReadModel, role: str) -> tuple[str, str]:
    """Return the model for a role, and why.

    Raises:
        Refusal: The role is unknown, or no model fits it.
    """
    try:
        chosen = read_model.recommend(role)
    except UnknownRoleError as error:
        raise Refusal(404, str(error)) from error
    if chosen is None:
        raise Refusal(404, f"No model on the server fits the role '{role}'.")
    return chosen.name, f"role {role}: {'; '.join(chosen.reasons)}"


def _first_present(read_model: ReadModel, names: str) -> str:
    """Return the first model of a list that the server has.

    Raises:
        Refusal: It has none of them.
    """
    for name in names.split(","):
        try:
            status = read_model.status(name.strip())
        except InvalidNameError:
            continue
        if status.present:
            return status.name
    raise Refusal(404, f"The server has none of the models '{names}'.")


def named_models(body: bytes) -> list[str]:
    """Return the models that a request names; empty if it is not valid."""
    try:
        fields = _decode_body(body)
        found = [_decode_text(fields[key]) for key in _NAMES if key in fields]
    except msgspec.DecodeError:
        return []
    return [name for one in found for name in one.split(",")]


def _apply_settings(
    read_model: ReadModel, endpoint: Endpoint, model: str, fields: _Body
) -> list[str]:
    """Add the configured settings that a request lacks; return them as text.

    With the setting ``override``, the configured values replace those of the request.
    """
    try:
        settings = read_model.status(model).settings
    except InvalidNameError:
        return []
    configured, overrides = options_for(settings), settings.get("override") is True
    applied = {}
    if endpoint.form is Form.OLLAMA:
        try:
            given = _decode_body(fields.get("options", b"{}"))
        except msgspec.DecodeError:
            return []
        added = {
            key: value
            for key, value in configured.options.items()
            if overrides or key not in given
        }
        if added:
            raw = {key: msgspec.Raw(_encode(value)) for key, value in added.items()}
            fields["options"] = msgspec.Raw(_encode(given | raw))
        applied.update(added)
        if configured.keep_alive is not None and (
            overrides or "keep_alive" not in fields
        ):
            fields["keep_alive"] = msgspec.Raw(_encode(configured.keep_alive))
            applied["keep_alive"] = configured.keep_alive
    for name in _TOP_LEVEL.get(endpoint.path, ()):
        if name in configured.options and (overrides or name not in fields):
            fields[name] = msgspec.Raw(_encode(configured.options[name]))
            applied[name] = configured.options[name]
    return [f"{name}={value}" for name, value in applied.items()]


def _chosen(model: str, reason: str) -> Headers:
    return [
        (b"X-Herdbook-Model", _header(model)),
        (b"X-Herdbook-Reason", _header(reason)),
    ]


def _header(text: str) -> bytes:
    """Return a text as the value of a header."""
    printable = "".join(one if one.isprintable() else " " for one in text)
    return printable.encode("ascii", "replace")[:1_000]
