"""Limits of a token: which models, how many requests at once, how many tokens a day."""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatchcase
from typing import Final

import msgspec

from herdbook.core import InvalidNameError
from herdbook.core.errors.validation import violation
from herdbook.core.models.names import canonical_name
from herdbook.gateway.protocol.answers import Refusal
from herdbook.gateway.protocol.json_bodies import fields_of, text_of

_NAMING: Final = frozenset({"model", "name", "source", "destination", "from"})
"""Fields of requests that name a model, in any of the APIs."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a token may use.

    Attributes:
        models: Patterns of model names, such as ``llama3*``; empty for every model.
        max_requests: Maximum number of concurrent requests; None for no limit.
        tokens_per_day: Maximum number of prompt and answer tokens per day (UTC); None
            for no limit.
    """

    models: tuple[str, ...] = ()
    max_requests: int | None = None
    tokens_per_day: int | None = None

    def allow(self, model: str) -> bool:
        """Return whether a model may be used; a name without a tag means ``latest``."""
        if not self.models:
            return True
        try:
            name = canonical_name(model)
        except InvalidNameError:
            return False
        short = name.removesuffix(":latest")
        return any(
            fnmatchcase(one.lower(), pattern.lower())
            for pattern in self.models
            for one in (name, short)
        )

    def check_models(self, models: Collection[str], token: str) -> None:
        """Check the models that a request names.

        Raises:
            Refusal: The token is not allowed to use one of them.
        """
        for model in models:
            if not self.allow(model):
                allowed = ", ".join(self.models)
                raise Refusal(
                    403, f"The token {token!r} is limited to the models {allowed}."
                )


def named_models(body: bytes) -> list[str]:
    """Return every name in a request that the server may take as that of a model.

    Go's JSON decoder ignores the case of keys, takes the last of several equal ones
    unless it is null, and reads no further than the first value. So all spellings
    count, and a body that is anything but one plain object is refused: the model that
    is checked must be the one that the server uses.

    Raises:
        Refusal: The body is not one JSON object, or a name is not a text.
    """
    try:
        return [
            text_of(value)
            for key, value in fields_of(body).items()
            if key.casefold() in _NAMING
        ]
    except msgspec.MsgspecError as error:
        problem = violation(str(error)).text("the body")
        raise Refusal(
            400, f"The models of the request cannot be checked: {problem}."
        ) from None


UNLIMITED: Final = Limits()
"""The limits of a token without limits, and of clients without a token."""
