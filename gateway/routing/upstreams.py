"""The nodes behind a gateway: how requests reach each, and whether it answers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from herdbook.gateway.access.checks import Caller
from herdbook.gateway.connections.server import ServerPool
from herdbook.gateway.protocol.endpoints import Endpoint
from herdbook.gateway.protocol.headers import Headers, Request
from herdbook.gateway.protocol.json_bodies import Fields
from herdbook.gateway.recording.uses import Use, UseTracker
from herdbook.gateway.rewriting.requests import Choice, Rewriter
from herdbook.gateway.routing.circuit_breaker import CircuitBreaker
from herdbook.gateway.settings import GatewaySettings

NODE_HEADER: Final = b"X-Herdbook-Node"
"""The header of an answer that names its node, and of a request that demands one."""

ANSWERED_S: Final = 5.0
"""Seconds after which the log shows that a model which answered is loaded."""


class Recorder(Protocol):
    """Receives the uses that the gateway sees."""

    def add(self, use: Use) -> None:
        """Receive a request that has ended."""

    @property
    def works(self) -> bool:
        """Whether uses can be recorded now."""
        ...


class Upstream:
    """A node behind a gateway.

    Args:
        name: Name of the node.
        url: Address of its server, without a slash at its end.
        settings: The settings of the gateway.
        recorder: Takes the uses of its models.
        rewriter: Changes requests for it; None to change none.
        running: Filled with the requests about models that are being relayed to it.
        authorization: The Authorization header that it needs; empty for none.

    Attributes:
        requests: Requests in progress, by model.
        answered: Models that answered lately, which the log may not show as loaded
            yet, and when that was, seconds of the monotonic clock.
        breaker: Whether it gets requests.
    """

    def __init__(
        self,
        name: str,
        url: str,
        settings: GatewaySettings,
        recorder: Recorder,
        rewriter: Rewriter | None,
        *,
        running: set[UseTracker] | None = None,
        authorization: bytes = b"",
    ) -> None:
        self.name = name
        self.pool = ServerPool(url, settings)
        self.recorder = recorder
        self.rewriter = rewriter
        self.running = set[UseTracker]() if running is None else running
        self.authorization = authorization
        self.requests: Counter[str] = Counter()
        self.answered: dict[str, float] = {}
        self.breaker = CircuitBreaker()

    def begin(self, model: str, tracker: UseTracker | None) -> None:
        """Count a request that is sent to the node."""
        self.breaker.begin()
        self.requests[model] += 1
        if tracker is not None:
            self.running.add(tracker)

    def end(self, model: str, tracker: UseTracker | None) -> None:
        """Count a request that ended, or is sent to another node."""
        self.breaker.ended()
        self.requests[model] -= 1
        if not self.requests[model]:
            del self.requests[model]
        if tracker is not None:
            self.running.discard(tracker)

    def forget_answers(self) -> None:
        """Forget the models that answered so long ago that the log has their load."""
        oldest = time.monotonic() - ANSWERED_S
        self.answered = {
            model: at for model, at in self.answered.items() if at > oldest
        }


class IncomingRequest(NamedTuple):
    """What has to be known of a request to choose its node.

    Attributes:
        endpoint: What is requested.
        request: The head of the request.
        caller: Who sent it.
        body: The whole body; None if it was not collected.
        tried: Names of nodes that failed to answer it.
        fields: The fields of the body, not to be changed; empty if it was not
            collected, or is no object.
    """

    endpoint: Endpoint
    request: Request
    caller: Caller
    body: bytes | None = None
    tried: frozenset[str] = frozenset()
    fields: Fields = {}  # noqa: RUF012 - never changed


class Route(NamedTuple):
    """Where a request is sent.

    Attributes:
        upstream: The node.
        model: The model that it is about; empty if that is not known.
        choice: The chosen model, if a role or a list was requested.
        headers: Further headers of the answer.
        has_model: Whether the node has the model, as far as the log shows.
    """

    upstream: Upstream
    model: str = ""
    choice: Choice | None = None
    headers: Headers = []  # noqa: RUF012 - never changed
    has_model: bool = False


class Router(Protocol):
    """Decides which node a request is sent to. Everything else follows from that."""

    @property
    def upstreams(self) -> Sequence[Upstream]:
        """The nodes that requests can be sent to."""
        ...

    def route(self, incoming: IncomingRequest) -> Route:
        """Return where a request is sent.

        Raises:
            Refusal: No node can answer it.
        """
        ...

    async def lists(self, path: str) -> list[tuple[str, bytes]]:
        """Return the body of the list at a path of each node that answers, by name."""
        ...

    def is_hung(self, upstream: Upstream) -> bool:
        """Return whether a node has been lost for long, and there are others."""
        ...

    def recommend(self, role: str) -> str | None:
        """Return the model that answers for a role; None if there is none."""
        ...
