"""The gateway itself: listen, check each request, relay it, and close in order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, Protocol

from herdbook.core import CallerError
from herdbook.core.logging import Logger
from herdbook.gateway.access import KEY_HEADERS, Access, Caller
from herdbook.gateway.answers import Refusal
from herdbook.gateway.connections.client import ClientConnection
from herdbook.gateway.connections.exchange import Exchange
from herdbook.gateway.connections.server import ServerPool
from herdbook.gateway.endpoints import (
    MODEL_CARDS,
    NAMING,
    SAFE_METHODS,
    SHOWS,
    Effect,
    Endpoint,
)
from herdbook.gateway.heads import Request, request_head, value_of, with_length
from herdbook.gateway.limits import Quotas, named_models
from herdbook.gateway.listing import LISTS, PS, changed_list
from herdbook.gateway.rewriting import Rewriter
from herdbook.gateway.settings import GatewaySettings
from herdbook.gateway.uses import Use, Watched

_log = Logger("herdbook.gateway")

_CHECK_EVERY_S = 1.0
"""Seconds between two checks of the time limits of all connections."""

_STOP_WITHIN_S = 2.5
"""Seconds that running requests have to end when the gateway stops."""


class Recorder(Protocol):
    """Takes the uses that the gateway sees."""

    def add(self, use: Use) -> None:
        """Take a request that has ended."""

    @property
    def works(self) -> bool:
        """Whether uses can be recorded now."""
        ...


class RunningRequests(Protocol):
    """Takes the number of requests that are being relayed."""

    def set(self, value: float) -> None:
        """Take the number."""


class GatewayObserver(Protocol):
    """Receives what the gateway does, for metrics."""

    @property
    def in_flight(self) -> RunningRequests:
        """Takes the number of requests that are being relayed."""
        ...

    def used(self, use: Use) -> None:
        """Take a request to a model that has ended."""


class _Nobody:
    """Observes nothing."""

    @property
    def in_flight(self) -> _Nobody:
        return self

    def set(self, value: float) -> None:
        """Ignore the number."""

    def used(self, use: Use) -> None:
        """Ignore the use."""


NO_OBSERVER: Final[GatewayObserver] = _Nobody()
"""The observer of a gateway without metrics."""


class Relay:
    """The connections of clients, and how their requests reach the server.

    Args:
        settings: Where to relay to, and the limits.
        access: Who may send what.
        recorder: Takes the uses.
        rewriter: Changes requests; None to change none.
        quotas: What tokens use now, and have used today.
        observer: Receives each use that ended, and the number of running requests.
        running: Filled with the requests about models that are being relayed.

    Attributes:
        settings: The settings.
        in_flight: Requests that are being relayed.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        access: Access,
        recorder: Recorder,
        rewriter: Rewriter | None,
        quotas: Quotas,
        observer: GatewayObserver,
        running: set[Watched] | None = None,
    ) -> None:
        self._quotas = quotas
        self._observer = observer
        self.settings = settings
        self._running = set[Watched]() if running is None else running
        self.in_flight = 0
        self._access = access
        self._recorder = recorder
        self._rewriter = rewriter
        self._pool = ServerPool(settings)
        self._clients: set[ClientConnection] = set()
        self._without = KEY_HEADERS if access.uses_tokens else frozenset[bytes]()
        self._idle = asyncio.Event()
        self._idle.set()

    def add(self, client: ClientConnection) -> bool:
        """Take a new connection; return whether there is room for it."""
        self._clients.add(client)
        return len(self._clients) <= self.settings.connections

    def discard(self, client: ClientConnection) -> None:
        """Forget a connection that was closed."""
        self._clients.discard(client)

    def exchange(
        self, client: ClientConnection, request: Request, endpoint: Endpoint
    ) -> Exchange:
        """Send a request to the server.

        Raises:
            Refusal: It must not be sent.
        """
        caller = self._access.check(request, endpoint, client.address)
        watched = None
        if endpoint.effect is not Effect.NONE:
            if self.settings.strict and not self._recorder.works:
                raise Refusal(503, "Uses cannot be recorded now. Try again later.")
            watched = Watched(endpoint, caller, self._report)
        collects = self._collects(request, endpoint, caller)
        counted = endpoint.effect is Effect.USE
        if counted:
            self._quotas.begin(caller.name, caller.limits)
        if watched is not None:
            self._running.add(watched)
        ended = partial(self._finished, caller.name if counted else None)
        exchange = Exchange(request, client, watched, ended)
        self.in_flight += 1
        self._observer.in_flight.set(self.in_flight)
        self._idle.clear()
        if request.method == "GET" and endpoint.path in LISTS:
            self._change_list(exchange, endpoint, caller)
        if collects:
            exchange.collect(partial(self._check_body, endpoint, caller, watched))
        else:
            self._send(exchange, request, None)
        return exchange

    def _collects(self, request: Request, endpoint: Endpoint, caller: Caller) -> bool:
        """Whether a request may have to be changed or refused by its body.

        Raises:
            Refusal: The models of the request cannot be checked, or are not those
                that the token may use.
        """
        compressed = value_of(request.headers, b"content-encoding") is not None
        if caller.limits.models:
            return _has_checked_body(request, endpoint, caller, compressed=compressed)
        changes = endpoint.effect is Effect.USE or endpoint.path in SHOWS
        return self._rewriter is not None and changes and not compressed

    def _check_body(
        self,
        endpoint: Endpoint,
        caller: Caller,
        watched: Watched | None,
        exchange: Exchange,
        body: bytes | None,
    ) -> None:
        """Check a request that was collected, change it if need be, and send it.

        Raises:
            Refusal: No model fits what is requested, or the token must not use it.
        """
        request, limits = exchange.request, caller.limits
        if body is None:
            if limits.models:
                raise Refusal(413, "A token limited to models cannot send this much.")
            self._send(exchange, request, None)
            return
        changed = None
        if self._rewriter is not None and endpoint.effect is not Effect.CHANGE:
            counted = limits.tokens_per_day is not None
            changed = self._rewriter.rewrite(endpoint, body, counted=counted)
        if limits.models:
            names = named_models(body if changed is None else changed.body)
            limits.check_models(names, caller.name)
        if changed is None:
            self._send(exchange, request, None)
            return
        if watched is not None:
            watched.choose(changed.model, changed.role)
        exchange.answer_headers = changed.headers
        self._send(exchange, with_length(request, len(changed.body)), changed.body)

    def _change_list(
        self, exchange: Exchange, endpoint: Endpoint, caller: Caller
    ) -> None:
        """Add roles to a list of models, and leave out what the token must not use."""
        roles = self.settings.roles and self._rewriter is not None
        if not roles and not caller.limits.models:
            return

        def change(status: int, body: bytes) -> bytes:
            if status != 200:
                return body
            listed = roles and endpoint.path != PS
            latest = self._rewriter.latest() if listed and self._rewriter else None
            return changed_list(
                endpoint.path, body, read_model=latest, allowed=caller.limits.allow
            )

        exchange.change_answer(change)

    def _report(self, use: Use) -> None:
        """Take the use of a model that has ended."""
        self._quotas.spend(use.caller.name, sum(use.tokens))
        self._recorder.add(use)
        self._observer.used(use)

    def _send(self, exchange: Exchange, request: Request, body: bytes | None) -> None:
        pool = self._pool
        head = request_head(
            request, host=pool.host, prefix=pool.prefix, without=self._without
        )
        exchange.begin(request, head, body)
        pool.send(exchange)

    async def watch(self) -> None:
        """Check the time limits of all connections until cancelled."""
        while True:
            await asyncio.sleep(_CHECK_EVERY_S)
            now = time.monotonic()
            for client in list(self._clients):
                client.check_time(now)
            self._pool.close_old()

    async def close(self) -> None:
        """Let running requests end for a short time, then close all connections."""
        try:
            async with asyncio.timeout(_STOP_WITHIN_S):
                await self._idle.wait()
        except TimeoutError:
            _log.info("requests_cut_off", requests=self.in_flight)
        for client in list(self._clients):
            client.shut()
        await self._pool.close()

    def _finished(self, token: str | None, exchange: Exchange) -> None:
        if exchange.watched is not None:
            self._running.discard(exchange.watched)
        if token is not None:
            self._quotas.end(token)
        self.in_flight -= 1
        self._observer.in_flight.set(self.in_flight)
        if not self.in_flight:
            self._idle.set()


def _has_checked_body(
    request: Request, endpoint: Endpoint, caller: Caller, *, compressed: bool
) -> bool:
    """Return whether the body of a token limited to models has to be checked.

    Raises:
        Refusal: The models of the request cannot be checked, or are not those that
            the token may use.
    """
    if endpoint.effect is not Effect.NONE or endpoint.path in NAMING:
        if compressed:
            raise Refusal(403, "A token limited to models cannot send this coding.")
        return request.method not in SAFE_METHODS
    if request.method not in SAFE_METHODS:
        raise Refusal(
            403, f"A token limited to models cannot use {endpoint.path[:200]}."
        )
    card = endpoint.path.removeprefix(MODEL_CARDS)
    if card != endpoint.path:
        caller.limits.check_models([card], caller.name)
    return False


@asynccontextmanager
async def serve_gateway(
    settings: GatewaySettings,
    access: Access,
    recorder: Recorder,
    rewriter: Rewriter | None = None,
    *,
    running: set[Watched] | None = None,
    failed: Callable[[], None],
    quotas: Quotas | None = None,
    observer: GatewayObserver = NO_OBSERVER,
) -> AsyncIterator[str]:
    """Listen, and relay requests while the block runs.

    Args:
        settings: Where to listen, where to relay to, and the limits.
        access: Who may send what.
        recorder: Takes the uses.
        rewriter: Changes requests; None to change none.
        running: Filled with the requests about models that are being relayed.
        failed: Called if the gateway stops by itself, which only a bug causes.
        quotas: What tokens have used today; nothing by default.
        observer: Receives each use that ended, and the number of running requests.

    Yields:
        The address of the gateway, such as ``http://127.0.0.1:11436``.

    Raises:
        CallerError: The address cannot be listened on.
    """
    relay = Relay(
        settings, access, recorder, rewriter, quotas or Quotas(), observer, running
    )
    loop = asyncio.get_running_loop()
    try:
        listening = await loop.create_server(
            lambda: ClientConnection(relay), settings.host, settings.port, backlog=512
        )
    except OSError as error:
        raise CallerError(
            f"the gateway on {settings.host}:{settings.port}",
            f"cannot listen there: {error.strerror or error}",
            "Choose another port, or port 0 for any free one",
        ) from error
    watching = asyncio.ensure_future(relay.watch())
    watching.add_done_callback(lambda task: None if task.cancelled() else failed())
    try:
        port = listening.sockets[0].getsockname()[1]
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        yield f"http://{host}:{port}"
    finally:
        listening.close()
        watching.cancel()
        await relay.close()
