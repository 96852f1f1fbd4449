"""Limits of a token: which models, how many requests at once, how many tokens a day.

What a token has used today is counted from the log when the gateway starts, so a
restart does not reset it. A request that has begun is never cut off: a budget can be
exceeded by the requests that run when it is reached.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Final

import msgspec

from herdbook.core import InvalidNameError, ModelManager, UsageDimension
from herdbook.core.models.names import canonical_name
from herdbook.gateway.answers import Refusal

_NAMING: Final = frozenset({"model", "name", "source", "destination", "from"})
"""Fields of requests that name a model, in any of the APIs."""

_decode_body = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_name = msgspec.json.Decoder(str).decode

_RETRY_S: Final = 1
"""Seconds after which a client with too many requests at once is to try again."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a token may use.

    Attributes:
        models: Patterns of model names, such as ``llama3*``; empty for every model.
        max_requests: Most requests at the same time; None for no limit.
        tokens_per_day: Tokens of prompts and answers in a day (UTC); None for no limit.
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
            _decode_name(value)
            for key, value in _decode_body(body).items()
            if key.casefold() in _NAMING
        ]
    except msgspec.MsgspecError as error:
        raise Refusal(
            400, f"The models of the request cannot be checked: {error}."
        ) from None


UNLIMITED: Final = Limits()
"""The limits of a token without limits, and of clients without a token."""


class Quotas:
    """What each token uses now, and has used today.

    Args:
        spent: Tokens that each client has used since the beginning of the day.
        now: Returns the current time, UTC.
    """

    def __init__(
        self,
        spent: dict[str, int] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._now = now
        self._day = now().date()
        self._spent = Counter(spent or {})
        self._running: Counter[str] = Counter()

    def begin(self, token: str, limits: Limits) -> None:
        """Count a request that begins.

        Raises:
            Refusal: The token has too many requests, or no tokens left today.
        """
        most, budget = limits.max_requests, limits.tokens_per_day
        if most is not None and self._running[token] >= most:
            raise Refusal(
                429,
                f"The token {token!r} may have {most} requests at once.",
                retry_after_s=_RETRY_S,
            )
        if budget is not None and self._spent_today(token) >= budget:
            now = self._now()
            day = datetime.combine(now.date() + timedelta(days=1), datetime.min.time())
            left = day.replace(tzinfo=UTC) - now
            raise Refusal(
                429,
                f"The token {token!r} has used its {budget:,} tokens of today (UTC).",
                retry_after_s=int(left.total_seconds()) + 1,
            )
        self._running[token] += 1

    def end(self, token: str) -> None:
        """Count a request that ended."""
        self._running[token] -= 1
        if not self._running[token]:
            del self._running[token]

    def spend(self, token: str, tokens: int) -> None:
        """Count the tokens of a request that ended."""
        self._spent_today(token)
        self._spent[token] += tokens

    def _spent_today(self, token: str) -> int:
        today = self._now().date()
        if today != self._day:
            self._day = today
            self._spent.clear()
        return self._spent[token]


async def quotas_of(manager: ModelManager) -> Quotas:
    """Return the quotas with what the log says about today.

    Raises:
        StoreError: The log cannot be read.
    """
    now = datetime.now(UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    usage = await manager.usage(UsageDimension.CLIENT, since=midnight, all_nodes=True)
    return Quotas(
        {
            row.group["client"] or "": row.prompt_tokens + row.output_tokens
            for row in usage.rows
        }
    )
