"""Uses that are recorded as one event, and those that could not be recorded."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final, NamedTuple

from msgspec import UNSET

from herdbook.events.facts import ModelUsed, UseFailed, UseOutcome, UsesNotRecorded
from herdbook.gateway.access.checks import Caller
from herdbook.gateway.recording.uses import Use

_LONGEST_REASON: Final = 500


class GroupKey(NamedTuple):
    """What uses have in common that are recorded as one event."""

    model: str
    caller: Caller
    endpoint: str
    outcome: UseOutcome
    failure: str
    role: str
    answered: bool


class UseGroup:
    """Uses that are recorded together.

    Attributes:
        count: Number of uses.
        ended: When the first and the last of them ended.
        loaded_by_it: Whether one of them loaded the model; None if that is unknown.
    """

    def __init__(self, use: Use, *, loaded_by_it: bool | None) -> None:
        self.count = 0
        self.loaded_by_it = loaded_by_it
        now = datetime.now(UTC)
        self.ended = (now, now)
        self._started_at = use.started_at
        self._duration_s = 0.0
        self._first_token_s: float | None = None
        self._prompt_tokens: int | None = None
        self._output_tokens: int | None = None
        self._estimated_tokens = 0

    @property
    def tokens(self) -> int:
        """All tokens, reported and estimated."""
        reported = (self._prompt_tokens or 0) + (self._output_tokens or 0)
        return reported + self._estimated_tokens

    def add(self, use: Use, estimated_tokens: int) -> None:
        """Add a use."""
        self.count += 1
        self._estimated_tokens += estimated_tokens
        self._duration_s += use.duration_s
        self._started_at = min(self._started_at, use.started_at)
        if use.first_token_s is not None:
            self._first_token_s = (self._first_token_s or 0.0) + use.first_token_s
        prompt, output = use.counts.prompt_tokens, use.counts.output_tokens
        if prompt is not None:
            self._prompt_tokens = (self._prompt_tokens or 0) + prompt
        if output is not None:
            self._output_tokens = (self._output_tokens or 0) + output

    def close(self) -> None:
        """Note when the last use ended."""
        self.ended = (self.ended[0], datetime.now(UTC))

    def fact(self, key: GroupKey) -> ModelUsed | UseFailed:
        """Return the fact to record."""
        estimated = self._estimated_tokens or UNSET
        started_at = datetime.fromtimestamp(self._started_at, UTC)
        if not key.answered:
            return UseFailed(
                endpoint=key.endpoint,
                client=key.caller.name,
                role=key.role or UNSET,
                estimated_tokens=estimated,
                started_at=started_at,
                duration_s=round(self._duration_s, 6),
                outcome=key.outcome,
                failure=key.failure,
                count=self.count,
            )
        first, loaded = self._first_token_s, self.loaded_by_it
        prompt, output = self._prompt_tokens, self._output_tokens
        return ModelUsed(
            endpoint=key.endpoint,
            client=key.caller.name,
            role=key.role or UNSET,
            started_at=started_at,
            duration_s=round(self._duration_s, 6),
            first_token_s=UNSET if first is None else round(first, 6),
            prompt_tokens=UNSET if prompt is None else prompt,
            output_tokens=UNSET if output is None else output,
            estimated_tokens=estimated,
            outcome=key.outcome,
            failure=key.failure or UNSET,
            loaded_by_it=UNSET if loaded is None else loaded,
            count=self.count,
        )


class MissingUses:
    """Uses that are missing in the log.

    Attributes:
        count: Their number.
    """

    def __init__(self) -> None:
        self.count = 0
        self._since: datetime | None = None
        self._until: datetime | None = None
        self._reason = ""

    def add(self, groups: Iterable[UseGroup], reason: str) -> None:
        """Add uses that could not be recorded."""
        for group in groups:
            self.count += group.count
            first, last = group.ended
            self._since = first if self._since is None else min(first, self._since)
            self._until = last if self._until is None else max(last, self._until)
        self._reason = reason[:_LONGEST_REASON]

    def fact(self) -> UsesNotRecorded:
        """Return the fact to record."""
        assert self._since is not None
        assert self._until is not None
        return UsesNotRecorded(
            count=self.count,
            since=self._since,
            until=self._until,
            reason=self._reason,
        )
