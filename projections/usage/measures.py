"""What is counted of uses, in sums that can be added to each other."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import UNSET

from herdbook.events.facts import ModelUsed, UseFailed, UseOutcome
from herdbook.projections.usage.histogram import Histogram, bin_of, merge

REPORTED: Final = "reported"
"""Outcome of a use that a program reported without measurements."""

OBSERVED: Final = "observed"
"""Outcome of a use that the server's state revealed."""

OTHERS: Final = "(others)"
"""Client of the uses that are not kept by client; no token can have this name."""

_COMPLETED: Final = UseOutcome.COMPLETED.value


class Key(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What uses that are counted together have in common; empty where unknown.

    Attributes:
        stream: The stream of the model.
        client: Name of the client's token, its address, or who reported the use.
        role: The role that was requested instead of a model.
        endpoint: The path that was requested.
        outcome: How the request ended; ``reported`` and ``observed`` without one.
        failure: Stable code of the error.
    """

    stream: str
    client: str
    role: str
    endpoint: str
    outcome: str
    failure: str


class Measures(msgspec.Struct, gc=False, array_like=True):
    """Sums over uses.

    Requests that are recorded together have one sum of their durations. In the
    histograms, each of them counts with the mean.

    Attributes:
        requests: Number of requests, without observed uses.
        observed: Number of observed uses, of one or more requests each.
        failed: Number of failed requests.
        left: Number of requests where the client left.
        loads: Number of requests known to have loaded their model.
        prompt_tokens: Tokens of the prompts.
        output_tokens: Tokens of the answers.
        estimated_tokens: Estimated tokens of what the server did not report.
        duration_s: Duration of all requests, seconds.
        generating_s: Duration of the requests that reported output tokens, seconds.
        durations: Histogram of the durations of completed requests.
        first_tokens: Histogram of the times to the first token.
    """

    requests: int = 0
    observed: int = 0
    failed: int = 0
    left: int = 0
    loads: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    estimated_tokens: int = 0
    duration_s: float = 0.0
    generating_s: float = 0.0
    durations: Histogram = {}
    first_tokens: Histogram = {}

    def add(self, other: Measures) -> None:
        """Add the sums of other uses."""
        self.requests += other.requests
        self.observed += other.observed
        self.failed += other.failed
        self.left += other.left
        self.loads += other.loads
        self.prompt_tokens += other.prompt_tokens
        self.output_tokens += other.output_tokens
        self.estimated_tokens += other.estimated_tokens
        self.duration_s += other.duration_s
        self.generating_s += other.generating_s
        merge(self.durations, other.durations)
        merge(self.first_tokens, other.first_tokens)

    def count_used(self, fact: ModelUsed, outcome: str) -> None:
        """Count the uses of one event.

        Args:
            fact: The event.
            outcome: The outcome of its key.
        """
        if outcome is OBSERVED:
            self.observed += 1
            return
        count, duration_s = fact.count, fact.duration_s
        if count is UNSET:
            count = 1
        self.requests += count
        if outcome != _COMPLETED:
            self._count_ended(outcome, count)
        if duration_s is UNSET or not count:
            return
        self.duration_s += duration_s
        if outcome == _COMPLETED:
            at = bin_of(duration_s / count)
            self.durations[at] = self.durations.get(at, 0) + count
        if fact.first_token_s is not UNSET:
            at = bin_of(fact.first_token_s / count)
            self.first_tokens[at] = self.first_tokens.get(at, 0) + count
        if fact.prompt_tokens is not UNSET:
            self.prompt_tokens += fact.prompt_tokens
        if fact.output_tokens is not UNSET:
            self.output_tokens += fact.output_tokens
            self.generating_s += duration_s
        self._count_estimated(fact)
        if fact.loaded_by_it is True:
            self.loads += 1

    def count_failed(self, fact: UseFailed) -> None:
        """Count the requests of one event that no model answered."""
        self.requests += fact.count
        self.duration_s += fact.duration_s
        self._count_estimated(fact)
        self._count_ended(fact.outcome, fact.count)

    def _count_estimated(self, fact: ModelUsed | UseFailed) -> None:
        if fact.estimated_tokens is not UNSET:
            self.estimated_tokens += fact.estimated_tokens

    def _count_ended(self, outcome: str, count: int) -> None:
        if outcome == UseOutcome.FAILED:
            self.failed += count
        elif outcome == UseOutcome.CLIENT_LEFT:
            self.left += count
