"""What each token uses now, and how many tokens of models it has used today.

All gateways on a log share a budget: what was recorded today is counted in the log, and
followed as the log grows. A request that has begun is never cut off, so a budget can be
exceeded by the requests that run when it is reached.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from msgspec import UNSET

from herdbook.core import ModelManager, RecordedEvent, UsageDimension
from herdbook.core.logging import Logger
from herdbook.events.errors import HerdbookError
from herdbook.events.facts import ModelUsed, UseFailed
from herdbook.events.shared.cancellation import end
from herdbook.gateway.access.limits import Limits
from herdbook.gateway.protocol.answers import Refusal
from herdbook.projections.sentences import counted

_log = Logger("herdbook.gateway")

_RETRY_S: Final = 1
"""Seconds after which a client with too many requests at once is to try again."""

_FOLLOW_AGAIN_S: Final = 1.0
"""Seconds until the log is followed again after that failed."""


class TokenCounter(Protocol):
    """Receives the tokens of uses: when they end, and when they are in the log."""

    def spend(self, client: str, tokens: int) -> None:
        """Count the tokens of a request that ended."""

    def recorded(self, client: str, tokens: int, position: int) -> None:
        """Note that tokens which were counted are in the log at a position."""


class Quotas:
    """What each token uses now, and has used today.

    Args:
        spent: Tokens that each client has used today up to a position of the log.
        position: The position.
        now: Returns the current time, UTC.
        followed: Whether ``apply`` receives what is recorded after the position. If
            not, only the requests of this process count.
    """

    def __init__(
        self,
        spent: dict[str, int] | None = None,
        position: int = 0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        *,
        followed: bool = False,
    ) -> None:
        self._now = now
        self._day = now().date()
        self._in_log = Counter(spent or {})
        self._position = position
        self._followed = followed
        self._not_in_log: Counter[str] = Counter()
        self._recorded: deque[tuple[int, str, int]] = deque()
        self._running: Counter[str] = Counter()

    @property
    def position(self) -> int:
        """Position of the last event of the log that is counted."""
        return self._position

    def begin(self, token: str, limits: Limits) -> None:
        """Count a request that begins.

        Raises:
            Refusal: The token has too many requests, or no tokens left today.
        """
        most, budget = limits.max_requests, limits.tokens_per_day
        if most is not None and self._running[token] >= most:
            requests = counted(most, "request")
            raise Refusal(
                429,
                f"The token {token!r} is limited to {requests} at a time.",
                retry_after_s=_RETRY_S,
            )
        if budget is not None and self._spent_today(token) >= budget:
            now = self._now()
            day = datetime.combine(now.date() + timedelta(days=1), datetime.min.time())
            left = day.replace(tzinfo=UTC) - now
            raise Refusal(
                429,
                f"The token {token!r} has used its {budget:,} tokens for today (UTC).",
                retry_after_s=int(left.total_seconds()) + 1,
            )
        self._running[token] += 1

    def end(self, token: str) -> None:
        """Count a request that ended."""
        self._running[token] -= 1
        if not self._running[token]:
            del self._running[token]

    def spend(self, client: str, tokens: int) -> None:
        """Count the tokens of a request that ended and is not in the log yet."""
        self._begin_day()
        self._not_in_log[client] += tokens

    def recorded(self, client: str, tokens: int, position: int) -> None:
        """Note that tokens which were counted are in the log at a position."""
        self._begin_day()
        if self._followed:
            self._recorded.append((position, client, tokens))
            self._leave_to_log()

    def apply(self, event: RecordedEvent) -> None:
        """Count the next event of the log, which any gateway may have recorded."""
        self._begin_day()
        self._position = event.position
        fact = event.data
        if event.recorded_at.date() == self._day and isinstance(
            fact, ModelUsed | UseFailed
        ):
            self._count(fact)
        self._leave_to_log()

    def _count(self, use: ModelUsed | UseFailed) -> None:
        if use.client is UNSET:
            return
        counts = [use.estimated_tokens]
        if isinstance(use, ModelUsed):
            counts += (use.prompt_tokens, use.output_tokens)
        self._in_log[use.client] += sum(each for each in counts if each is not UNSET)

    def _leave_to_log(self) -> None:
        """Forget own tokens that the counted part of the log has."""
        recorded = self._recorded
        while recorded and recorded[0][0] <= self._position:
            _, client, tokens = recorded.popleft()
            self._not_in_log[client] = max(self._not_in_log[client] - tokens, 0)

    def _spent_today(self, token: str) -> int:
        self._begin_day()
        return self._in_log[token] + self._not_in_log[token]

    def _begin_day(self) -> None:
        today = self._now().date()
        if today != self._day:
            self._day = today
            self._in_log.clear()
            self._not_in_log.clear()
            self._recorded.clear()  # yesterday's, which today's count does not include


@asynccontextmanager
async def followed_quotas(
    manager: ModelManager, failed: Callable[[], None]
) -> AsyncIterator[Quotas]:
    """Keep quotas up to date with the log while the block runs.

    Args:
        manager: A manager on the log.
        failed: Called if this stops by itself, which only a bug causes.

    Raises:
        StoreError: The log cannot be read.
    """
    now = datetime.now(UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    usage = await manager.usage(UsageDimension.CLIENT, since=midnight, all_nodes=True)
    spent = {
        row.group["client"] or "": row.prompt_tokens
        + row.output_tokens
        + row.estimated_tokens
        for row in usage.rows
    }
    quotas = Quotas(spent, usage.until, followed=True)
    following = asyncio.ensure_future(_follow(manager, quotas))
    following.add_done_callback(lambda task: None if task.cancelled() else failed())
    try:
        yield quotas
    finally:
        await end(following)


async def _follow(manager: ModelManager, quotas: Quotas) -> None:
    """Count the events of the log as they are recorded, until cancelled."""
    while True:
        try:
            async with aclosing(manager.events(after=quotas.position)) as events:
                async for event in events:
                    quotas.apply(event)
        except HerdbookError as error:  # what was counted so far stays
            _log.warning("log_not_followed", reason=str(error))
        await asyncio.sleep(_FOLLOW_AGAIN_S)
