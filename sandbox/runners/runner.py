"""What a runner is, who wants one, and why it may not start.

Invariant: a runner serves every name of its weights, as long as they want the same
context and options; anything else needs a new one.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from herdbook.sandbox.clock import Timer
from herdbook.sandbox.go_time import FOREVER_S
from herdbook.sandbox.models.artifacts import Weights
from herdbook.sandbox.results import PendingResult
from herdbook.sandbox.settings import Settings

_OUT_OF_MEMORY: Final = re.compile(
    r"out of memory|failed to allocate|allocation failed|not enough memory"
    r"|insufficient memory|cudaMalloc failed|hipMalloc failed",
    re.IGNORECASE,
)


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a request wants to be in memory.

    Attributes:
        name: the model's shortest name.
        digest: of its manifest.
        details: the details that ps shows.
        context: the effective context length.
        others: further options that only a new runner can take on.
    """

    name: str
    digest: str
    details: dict[str, object]
    weights: Weights
    context: int
    others: tuple[tuple[str, object], ...] = ()


class Runner:
    """A process that holds weights.

    Attributes:
        wanted: What it was started for; other names of the weights may use it.
        session_s: Seconds that it stays when it is idle.
        expires: When it expires, by the clock; while it is in use, the time from
            before. None until it has been idle.
        users: Number of requests in progress.
        dead: Whether its process was killed, which the server has not noticed.
    """

    def __init__(self, wanted: Wanted, session_s: float) -> None:
        self.wanted = wanted
        self.session_s = session_s
        self.expires: float | None = None
        self.users = 0
        self.dead = False
        self.timer: Timer | None = None

    @property
    def size(self) -> int:
        """The bytes it takes: the weights and room for the context."""
        weights = self.wanted.weights
        cells = weights.embedding_length * self.wanted.context
        return weights.size + cells * 24

    def expires_at(self, now: float) -> float:
        """Return when it expires."""
        session = min(self.session_s, FOREVER_S)
        return now + session if self.expires is None else self.expires

    def stop_timer(self) -> None:
        """Cancel its expiry."""
        if self.timer is not None:
            self.timer.cancel()
        self.timer = None

    def serves(self, wanted: Wanted) -> bool:
        """Return whether it can serve a request as it is."""
        mine = (self.wanted.context, self.wanted.others)
        return not self.dead and mine == (wanted.context, wanted.others)


class Request:
    """A request for a runner; ``Runners.leave`` ends it."""

    def __init__(self, wanted: Wanted, keep_alive_s: float | None) -> None:
        self.wanted = wanted
        self.keep_alive_s = keep_alive_s
        self.granted: PendingResult[Runner] = PendingResult()
        self.runner: Runner | None = None
        self.loaded_s = 0.0


def why_not(
    wanted: Wanted, settings: Settings, *, takes: float, says: str | None
) -> str:
    """Return why a runner does not start; empty if it does.

    Args:
        wanted: What it would hold.
        settings: The machine on which it starts.
        takes: Seconds until it would be ready.
        says: Its error output before it dies; None if it does not die.
    """
    if says is not None:
        heard = _heard(says)
        died = "llama-server process has terminated: exit status 1"
        return f"{died}: {heard}" if heard else died
    needs, memory = Runner(wanted, 0).size, settings.memory_bytes
    if memory is not None and needs > memory:
        more = f"more system memory ({needs / 2**30:.1f} GiB)"
        return f"model requires {more} than is available ({memory / 2**30:.1f} GiB)"
    if takes > settings.load_timeout_s:
        return "timed out waiting for llama-server to start - "
    return ""


def _heard(said: str) -> str:
    """Return the lines that the server reports: failed allocations and models."""
    kept = []
    for line in said.splitlines():
        _, found, rest = line.partition("error loading model")
        if found:
            kept.append(f"{found}{rest}")
        elif _OUT_OF_MEMORY.search(line):
            kept.append(line)
    return "\n".join(kept)
