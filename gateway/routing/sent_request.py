"""A request on its way to a node, and what follows if the node does not serve it."""

from __future__ import annotations

import time
from typing import Final, Protocol

from herdbook.gateway.connections.exchange import Exchange
from herdbook.gateway.protocol.endpoints import SAFE_METHODS, Effect
from herdbook.gateway.routing.upstreams import IncomingRequest, Route, Upstream

_CLIENT_ERROR: Final = 400
"""The lowest status of an answer that is an error."""

_NOT_FOUND: Final = 404
"""The status of a server that no longer has the model."""

_SERVER_ERROR: Final = 500
"""The lowest status by which a server reports a failure of its own."""

_BUSY: Final = 503
"""The status of a server whose queue is full: it is not broken."""


class Resender(Protocol):
    """Sends a request to another node."""

    def retry(
        self, exchange: Exchange, incoming: IncomingRequest, *, needs_model: bool
    ) -> bool:
        """Send a request that a node did not answer to another one, if there is one.

        Args:
            exchange: The exchange.
            incoming: The request, with the nodes that were tried.
            needs_model: Whether only a node that has the model will do.

        Returns:
            Whether it was sent.
        """
        ...


class SentRequest:
    """A request that was sent to a node, and is sent to another one if that fails.

    Args:
        relay: Sends it again.
        incoming: The request.
        route: Where it was sent.

    Attributes:
        upstream: The node.
        failed_first: The node that reported a failure of its own before; None for none.
        model: The model that the request is about; empty if that is not known.
    """

    __slots__ = ("_incoming", "_relay", "failed_first", "model", "upstream")

    def __init__(
        self, relay: Resender, incoming: IncomingRequest, route: Route
    ) -> None:
        self._relay = relay
        self._incoming = incoming
        self.upstream = route.upstream
        self.model = route.model
        self.failed_first: Upstream | None = None

    @property
    def is_repeatable(self) -> bool:
        """Whether it changes nothing if the node gets the request twice."""
        method, effect = self._incoming.request.method, self._incoming.endpoint.effect
        return method in SAFE_METHODS or effect is Effect.USE

    @property
    def is_counted(self) -> bool:
        """Whether the tokens of the answer have to be known."""
        budget = self._incoming.caller.limits.tokens_per_day
        return budget is not None and self._incoming.endpoint.effect is Effect.USE

    def answered(self, exchange: Exchange, status: int) -> bool:
        """Note that the node has started to answer.

        A use that it could not serve is sent to one other node that has the model. What
        that answers shows whether the node or the request is at fault.

        Returns:
            Whether the request was sent to another node, so that this answer is not
            needed.
        """
        is_use = self._incoming.endpoint.effect is Effect.USE
        failed = status >= _SERVER_ERROR
        unserved = is_use and (failed or status == _NOT_FOUND)
        if (
            unserved
            and not self._incoming.tried
            and self.send_elsewhere(exchange, needs_model=True)
        ):
            if failed and status != _BUSY:
                assert isinstance(exchange.route, SentRequest)
                exchange.route.failed_first = self.upstream
            return True
        self.upstream.breaker.succeeded()
        if self.failed_first is not None and not failed:
            self.failed_first.breaker.failed()
        if is_use and status < _CLIENT_ERROR:
            self.upstream.answered[self.model] = time.monotonic()
        return False

    def failed(self, exchange: Exchange) -> bool:
        """Note that the node failed; return whether another one got the request."""
        self.upstream.breaker.failed()
        return self.send_elsewhere(exchange)

    def send_elsewhere(self, exchange: Exchange, *, needs_model: bool = False) -> bool:
        """Send the request to another node, if there is one; return whether it was.

        Args:
            exchange: The exchange.
            needs_model: Whether only a node that has the model will do.
        """
        self.end(exchange)
        incoming = self._incoming
        again = incoming._replace(tried=incoming.tried | {self.upstream.name})
        if self._relay.retry(exchange, again, needs_model=needs_model):
            return True
        self.upstream.begin(self.model, exchange.tracker)  # it is ended by the caller
        return False

    def end(self, exchange: Exchange) -> None:
        """Note that the request ended there."""
        self.upstream.end(self.model, exchange.tracker)
