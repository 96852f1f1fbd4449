"""The nodes behind a gateway: how requests reach each, and whether it answers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from herdbook.gateway.access import Caller
from herdbook.gateway.bodies import Fields
from herdbook.gateway.connections.server import ServerPool
from herdbook.gateway.endpoints import Endpoint
from herdbook.gateway.heads import Headers, Request
from herdbook.gateway.rewriting import Choice, Rewriter
from herdbook.gateway.settings import GatewaySettings
from herdbook.gateway.uses import Use, Watched

FAILURES: Final = 3
"""Failures in a row after which a node gets no requests for some time."""

FIRST_REST_S: Final = 5.0
"""Seconds without requests after these; doubled each time that the next one fails."""

LONGEST_REST_S: Final = 60.0

NODE_HEADER: Final = b"X-Herdbook-Node"
"""The header of an answer that names its node, and of a request that demands one."""


class Recorder(Protocol):
    """Takes the uses that the gateway sees."""

    def add(self, use: Use) -> None:
        """Take a request that has ended."""

    @property
    def works(self) -> bool:
        """Whether uses can be recorded now."""
        ...


class Breaker:
    """Keeps requests away from a node that fails, and lets one at a time try again.

    Args:
        now: Returns seconds of a monotonic clock.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._failures = 0
        self._rest_s = FIRST_REST_S
        self._until = 0.0
        self._trying = False

    @property
    def closed(self) -> bool:
        """Whether the node gets requests as usual."""
        return self._failures < FAILURES

    @property
    def allows(self) -> bool:
        """Whether the node may get a request now."""
        return self.closed or (not self._trying and self._now() >= self._until)

    def begin(self) -> None:
        """Note that a request is sent."""
        self._trying = not self.closed

    def succeeded(self) -> None:
        """Note that the node answered."""
        self._failures, self._rest_s, self._trying = 0, FIRST_REST_S, False

    def failed(self) -> None:
        """Note that the node failed before it answered."""
        again, self._trying = self._trying, False
        self._failures += 1
        if self.closed:
            return
        if again:
            self._rest_s = min(2 * self._rest_s, LONGEST_REST_S)
        self._until = self._now() + self._rest_s

    def left(self) -> None:
        """Note that a request ended without showing whether the node answers."""
        self._trying = False


class Upstream:
    """A node behind a gateway.

    Args:
        name: Name of the node.
        settings: The settings of the gateway, with the address of the node.
        recorder: Takes the uses of its models.
        rewriter: Changes requests for it; None to change none.
        running: Filled with the requests about models that are being relayed to it.
        authorization: The Authorization header that it needs; empty for none.

    Attributes:
        requests: Requests in progress, by model.
        breaker: Whether it gets requests.
    """

    def __init__(
        self,
        name: str,
        settings: GatewaySettings,
        recorder: Recorder,
        rewriter: Rewriter | None,
        *,
        running: set[Watched] | None = None,
        authorization: bytes = b"",
    ) -> None:
        self.name = name
        self.pool = ServerPool(settings)
        self.recorder = recorder
        self.rewriter = rewriter
        self.running = set[Watched]() if running is None else running
        self.authorization = authorization
        self.requests: Counter[str] = Counter()
        self.breaker = Breaker()

    def begin(self, model: str, watched: Watched | None) -> None:
        """Count a request that is sent to the node."""
        self.breaker.begin()
        self.requests[model] += 1
        if watched is not None:
            self.running.add(watched)

    def end(self, model: str, watched: Watched | None) -> None:
        """Count a request that ended, or is sent to another node."""
        self.breaker.left()
        self.requests[model] -= 1
        if not self.requests[model]:
            del self.requests[model]
        if watched is not None:
            self.running.discard(watched)


class Wanted(NamedTuple):
    """What has to be known of a request to choose its node.

    Attributes:
        endpoint: What is requested.
        request: The head of the request.
        caller: Who sent it.
        body: The whole body; None if it was not collected.
        tried: Names of nodes that failed to answer it.
        fields: The fields of the body, once they were read; empty if it is no object.
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
    """

    upstream: Upstream
    model: str = ""
    choice: Choice | None = None
    headers: Headers = []  # noqa: RUF012 - never changed


class Router(Protocol):
    """Decides which node a request is sent to. Everything else follows from that."""

    @property
    def upstreams(self) -> Sequence[Upstream]:
        """The nodes, at least one."""
        ...

    def route(self, wanted: Wanted) -> Route:
        """Return where a request is sent.

        Raises:
            Refusal: No node can answer it.
        """
        ...

    async def lists(self, path: str) -> list[tuple[str, bytes]]:
        """Return the body of the list at a path of each node that answers, by name."""
        ...

    def recommend(self, role: str) -> str | None:
        """Return the model that answers for a role; None if there is none."""
        ...


class OneUpstream:
    """The router of a gateway in front of one server."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstreams = (upstream,)

    def route(self, wanted: Wanted) -> Route:  # noqa: ARG002 - of the protocol
        """Return the only node."""
        return Route(self.upstreams[0])

    async def lists(self, path: str) -> list[tuple[str, bytes]]:  # noqa: ARG002
        """Return nothing: the list of the only node is relayed."""
        return []

    def recommend(self, role: str) -> str | None:
        """Return the model that answers for a role; None if there is none."""
        return recommended(self.upstreams[0], role)


def recommended(upstream: Upstream, role: str) -> str | None:
    """Return the model of a node that answers for a role; None if there is none."""
    if upstream.rewriter is None:
        return None
    chosen = upstream.rewriter.latest().recommend(role)
    return None if chosen is None else chosen.name
