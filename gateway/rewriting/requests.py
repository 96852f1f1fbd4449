"""Requests that the gateway changes: roles, fallback lists and settings of models.

A request is changed only where that is needed, and every value that is not changed
keeps its bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import msgspec

from herdbook.core import InvalidNameError, ReadModel, UnknownRoleError
from herdbook.core.models.configuration import keep_alive_seconds, options_for
from herdbook.core.operations.uses import Uses
from herdbook.events.facts import Setting
from herdbook.gateway.protocol.answers import Refusal
from herdbook.gateway.protocol.endpoints import SHOWS, Effect, Endpoint, Form
from herdbook.gateway.protocol.headers import Headers
from herdbook.gateway.protocol.json_bodies import (
    Fields,
    fields_of,
    text_of,
    value_in,
)

ROLE: Final = "role:"
"""The prefix of a role that is requested instead of a model."""

_TOP_LEVEL: Final = {
    "/v1/chat/completions": ("temperature", "top_p", "seed"),
    "/v1/completions": ("temperature", "top_p", "seed"),
    "/v1/responses": ("temperature", "top_p"),
    "/v1/messages": ("temperature", "top_p", "top_k"),
}
"""Options that the compatible APIs have too, by endpoint, with the same meaning."""

_COUNTED_ON_REQUEST: Final = frozenset({"/v1/chat/completions", "/v1/completions"})
"""Endpoints whose streams report their tokens only if the request asks for them."""

_TEXTS: Final = frozenset({"prompt", "messages", "input"})
"""Fields of Ollama's own API with what the model is to answer."""

_NOTHING: Final = frozenset({b'""', b"[]", b"null"})

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


class Choice(NamedTuple):
    """The model that answers a request for a role or for the first of several models.

    Attributes:
        model: Name of the model.
        role: The role that was requested; empty if none was.
        reason: Why this model, in words.
    """

    model: str
    role: str
    reason: str

    @property
    def headers(self) -> Headers:
        """The headers of the answer that report the choice."""
        return [
            (b"X-Herdbook-Model", header_value(self.model)),
            (b"X-Herdbook-Reason", header_value(self.reason)),
        ]


def asked_model(endpoint: Endpoint, fields: Fields) -> str | None:
    """Return the model that a request names; None if that cannot be read."""
    try:
        return text_of(fields.get(_key_of(endpoint, fields), b"null"))
    except msgspec.DecodeError:  # the server reports what is wrong
        return None


class Rewriter:
    """Changes requests by what the log says about the models.

    Args:
        uses: Knows the models of the server.
    """

    def __init__(self, uses: Uses) -> None:
        self._uses = uses

    def latest(self) -> ReadModel:
        """Return the newest read model without reading the log."""
        return self._uses.latest()

    def rewrite(
        self,
        endpoint: Endpoint,
        given: Fields,
        *,
        counted: bool = False,
        allowed: Callable[[str], bool] | None = None,
        choice: Choice | None = None,
    ) -> Rewritten | None:
        """Return the changed request; None if it can pass as it is.

        Args:
            endpoint: What is requested.
            given: The fields of the body; they are not changed.
            counted: Whether the answer must report its tokens, for a budget.
            allowed: Whether the client may use a model; None if it may use all.
            choice: The model that was chosen already; None to choose one if need be.

        Raises:
            Refusal: No model fits what is requested.
        """
        asked = asked_model(endpoint, given)
        if asked is None:
            return None
        choice = choice or self._choose(asked, allowed)
        headers: Headers = [] if choice is None else choice.headers
        model, role = (asked, "") if choice is None else (choice.model, choice.role)
        fields = given.copy()
        if model != asked:
            fields[_key_of(endpoint, fields)] = msgspec.Raw(_encode(model))
        applied: list[str] = []
        if endpoint.effect is Effect.USE:
            applied = self._apply_settings(endpoint, model, fields)
        if counted:
            applied += _ask_for_counts(endpoint, fields)
        if applied:
            headers.append((b"X-Herdbook-Settings", header_value(", ".join(applied))))
        if not headers:
            return None
        return Rewritten(_encode(fields), model, role, headers)

    def _choose(
        self, asked: str, allowed: Callable[[str], bool] | None
    ) -> Choice | None:
        """Return the model for a role or a list; None if a model was asked for.

        Raises:
            Refusal: No model fits.
        """
        if asked.startswith(ROLE):
            return _by_role(self.latest(), asked.removeprefix(ROLE), allowed)
        if "," in asked:
            first = _first_present(self.latest(), asked, allowed)
            return Choice(first, "", f"first of {asked}")
        return None

    def _apply_settings(
        self, endpoint: Endpoint, model: str, fields: Fields
    ) -> list[str]:
        """Add the configured settings that a request lacks; return them as text.

        With the setting ``override``, configured values replace those of the request.
        """
        try:
            settings = self._uses.settings(model)
        except InvalidNameError:
            return []
        return _merge_settings(settings, endpoint, fields) if settings else []


def _key_of(endpoint: Endpoint, fields: Fields) -> str:
    """Return the field that names the model: ``name`` in requests of old clients."""
    named = endpoint.path in SHOWS and "model" not in fields
    return "name" if named else "model"


def _by_role(
    read_model: ReadModel, role: str, allowed: Callable[[str], bool] | None
) -> Choice:
    """Return the best model for a role that the client may use.

    Raises:
        Refusal: The role is unknown, or no model fits it.
    """
    try:
        if allowed is None:
            chosen = read_model.recommend(role)
        else:
            order = read_model.explain(role).chosen
            chosen = next((one for one in order if allowed(one.name)), None)
            if order and chosen is None:
                raise no_model_allowed(role)
    except UnknownRoleError as error:
        raise Refusal(404, str(error)) from error
    if chosen is None:
        raise no_model_fits(role)
    return Choice(chosen.name, role, f"role {role}: {'; '.join(chosen.reasons)}")


def no_model_allowed(role: str) -> Refusal:
    """Return the refusal of a role that fits no model which the token may use."""
    return Refusal(
        403, f"No model that the token may use fits the role '{role[:100]}'."
    )


def no_model_fits(role: str) -> Refusal:
    """Return the refusal of a role that no model fits."""
    return Refusal(404, f"No model on the server fits the role '{role[:100]}'.")


def no_listed_model_allowed(names: str) -> Refusal:
    """Return the refusal of a list with no present model that the token may use."""
    return Refusal(
        403, f"The token may use none of the present models of '{names[:200]}'."
    )


def _first_present(
    read_model: ReadModel, names: str, allowed: Callable[[str], bool] | None
) -> str:
    """Return the first model of a list that the server has and the client may use.

    Raises:
        Refusal: There is none.
    """
    any_present = False
    for name in names.split(","):
        try:
            status = read_model.status(name.strip())
        except InvalidNameError:
            continue
        if status.present and (allowed is None or allowed(status.name)):
            return status.name
        any_present = any_present or status.present
    if any_present:
        raise no_listed_model_allowed(names)
    raise Refusal(404, f"The server has none of the models '{names[:200]}'.")


def _merge_settings(
    settings: Mapping[str, Setting], endpoint: Endpoint, fields: Fields
) -> list[str]:
    """Add settings that a request lacks; return them as text."""
    configured, wins = options_for(settings), settings.get("override") is True
    applied = []
    if endpoint.form is Form.OLLAMA:
        try:
            given = fields_of(fields.get("options", b"{}"))
        except msgspec.DecodeError:
            return []
        applied = _merge(configured.options, given, wins=wins)
        if applied:
            fields["options"] = msgspec.Raw(_encode(given))
        if configured.keep_alive is not None and not _unloads(fields):
            applied += _merge({"keep_alive": configured.keep_alive}, fields, wins=wins)
    top = {
        name: configured.options[name]
        for name in _TOP_LEVEL.get(endpoint.path, ())
        if name in configured.options
    }
    return applied + _merge(top, fields, wins=wins)


def _merge(values: Mapping[str, Setting], into: Fields, *, wins: bool) -> list[str]:
    """Set values where they are missing, or also where they differ.

    Args:
        values: The configured values.
        into: The fields of the request.
        wins: Whether to replace other values.

    Returns:
        The changes as text: ``num_ctx=8192 (was 4096)``.
    """
    changed = []
    for name, value in values.items():
        raw = _encode(value)
        was = into.get(name)
        if was is None:
            changed.append(f"{name}={value}")
        elif wins and bytes(was).strip() != raw:
            old = bytes(was).strip()[:80].decode("utf-8", "replace").strip('"')
            changed.append(f"{name}={value} (was {old})")
        else:
            continue
        into[name] = msgspec.Raw(raw)
    return changed


def only_loads(body: bytes) -> bool:
    """Return whether a request in Ollama's form only loads or unloads its model."""
    try:
        fields = fields_of(body)
    except msgspec.DecodeError:  # the server reports what is wrong
        return False
    return not any(
        key.lower() in _TEXTS and bytes(value).strip() not in _NOTHING
        for key, value in fields.items()
    )


def _unloads(fields: Fields) -> bool:
    """Return whether a request only unloads its model: its keep-alive must stay."""
    if _TEXTS & fields.keys():
        return False
    try:
        keep_alive = value_in(fields.get("keep_alive", b"null"))
    except msgspec.DecodeError:
        return False
    return keep_alive_seconds(keep_alive) == 0


def _ask_for_counts(endpoint: Endpoint, fields: Fields) -> list[str]:
    """Let a stream in OpenAI's form report its tokens; return the change as text."""
    if endpoint.path not in _COUNTED_ON_REQUEST or not _is_true(fields.get("stream")):
        return []
    try:
        given = fields_of(fields.get("stream_options", b"{}"))
    except msgspec.DecodeError:
        return []
    if _is_true(given.get("include_usage")):
        return []
    counted = given | {"include_usage": msgspec.Raw(b"true")}
    fields["stream_options"] = msgspec.Raw(_encode(counted))
    return ["stream_options.include_usage=true"]


def _is_true(value: msgspec.Raw | None) -> bool:
    return value is not None and bytes(value).strip() == b"true"


def header_value(text: str) -> bytes:
    """Return a text as the value of a header."""
    printable = "".join(one if one.isprintable() else " " for one in text)
    return printable.encode("ascii", "replace")[:1_000]
