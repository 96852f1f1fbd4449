"""The gateway itself: listen, check each request, relay it, and close in order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import msgspec

from herdbook.core import CallerError
from herdbook.core.errors.caller import listen_failure
from herdbook.core.logging import Logger
from herdbook.gateway.access.checks import KEY_HEADERS, Access
from herdbook.gateway.access.limits import named_models
from herdbook.gateway.access.quotas import Quotas
from herdbook.gateway.collected_bodies import check_body, must_collect
from herdbook.gateway.connections.client import ClientConnection
from herdbook.gateway.connections.exchange import Exchange
from herdbook.gateway.model_lists import ModelLists
from herdbook.gateway.observer import NO_OBSERVER, GatewayObserver
from herdbook.gateway.protocol.answers import Refusal
from herdbook.gateway.protocol.endpoints import (
    FORMS,
    SAFE_METHODS,
    Effect,
    Endpoint,
)
from herdbook.gateway.protocol.headers import (
    Headers,
    Request,
    request_head,
    with_length,
)
from herdbook.gateway.protocol.json_bodies import request_fields_if_any
from herdbook.gateway.recording.uses import Use, UseTracker
from herdbook.gateway.routing.sent_request import SentRequest
from herdbook.gateway.routing.upstreams import IncomingRequest, Route, Router
from herdbook.gateway.settings import GatewaySettings

_log = Logger("herdbook.gateway")

_CHECK_EVERY_S = 1.0
"""Seconds between two checks of the time limits of all connections."""

_STOP_WITHIN_S = 2.5
"""Seconds that running requests have to end when the gateway stops."""


class Relay:
    """The connections of clients, and how their requests reach the server.

    Args:
        settings: The limits.
        access: Who may send what.
        router: Decides which node a request is sent to.
        quotas: What tokens use now, and have used today.
        observer: Receives each use that ended, and the number of running requests.

    Attributes:
        settings: The settings.
        in_flight: Requests that are being relayed.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        access: Access,
        router: Router,
        quotas: Quotas,
        observer: GatewayObserver,
    ) -> None:
        self._quotas = quotas
        self._observer = observer
        self.settings = settings
        self.in_flight = 0
        observer.follow(lambda: self.in_flight)
        self._access = access
        self._router = router
        self._lists = ModelLists(router, roles=settings.roles)
        self._clients: set[ClientConnection] = set()
        self._without = KEY_HEADERS if access.uses_tokens else frozenset[bytes]()
        self._idle = asyncio.Event()
        self._idle.set()

    def add(self, client: ClientConnection) -> bool:
        """Accept a new connection; return whether there is room for it."""
        self._clients.add(client)
        return len(self._clients) <= self.settings.connections

    def discard(self, client: ClientConnection) -> None:
        """Forget a connection that was closed."""
        self._clients.discard(client)

    def shared_with(self, headers: Headers) -> Headers:
        """Return the headers of an answer that let the page of a request read it."""
        return self._access.shared_with(headers)

    def exchange(
        self, client: ClientConnection, request: Request, endpoint: Endpoint
    ) -> Exchange:
        """Send a request to the server.

        Raises:
            Refusal: It must not be sent.
        """
        caller = self._access.check(request, endpoint, client.address)
        tracker = None
        if endpoint.effect is not Effect.NONE:
            if self.settings.strict and not self._records():
                raise Refusal(503, "Uses cannot be recorded now. Try again later.")
            tracker = UseTracker(endpoint, caller)
        incoming = IncomingRequest(endpoint, request, caller)
        several = len(self._router.upstreams) > 1
        collects = must_collect(incoming, self.settings, several=several)
        lists = ModelLists.handles(request.method, endpoint.path)
        merges = lists and several
        route = None if collects or merges else self._router.route(incoming)
        counted = endpoint.effect is Effect.USE
        if counted:
            self._quotas.begin(caller.name, caller.limits)
        ended = partial(self._finished, caller.name if counted else None)
        exchange = Exchange(request, client, tracker, ended)
        if tracker is not None:
            tracker.report = partial(self._report, exchange)
        self.in_flight += 1
        self._idle.clear()
        if merges:
            exchange.answer_headers = self.shared_with(request.headers)
            self._lists.merge(exchange, incoming)
            return exchange
        if lists:
            self._lists.change(exchange, endpoint, caller)
        if route is None:
            exchange.collect(partial(self._check_body, incoming))
        else:
            exchange.answer_headers = [*route.headers]
            self._send(exchange, request, None, SentRequest(self, incoming, route))
        return exchange

    def _records(self) -> bool:
        return all(each.recorder.works for each in self._router.upstreams)

    def _check_body(
        self, incoming: IncomingRequest, exchange: Exchange, body: bytes | None
    ) -> None:
        """Check a request that was collected, change it if need be, and send it.

        Raises:
            Refusal: No model fits what is requested, or the token must not use it.
        """
        fields = {}
        if body is not None:
            # Read once, for the name, the settings and the conversation. A form, which
            # may be long, has none.
            is_form = incoming.endpoint.path in FORMS
            fields = {} if is_form else request_fields_if_any(body)
            if exchange.tracker is not None:
                exchange.tracker.whole_request_body(body, fields)
        check_body(incoming, body)
        endpoint, request, caller = incoming[:3]
        incoming = IncomingRequest(endpoint, request, caller, body, fields=fields)
        self._send_collected(exchange, incoming, self._router.route(incoming))

    def _send_collected(
        self,
        exchange: Exchange,
        incoming: IncomingRequest,
        route: Route,
        *,
        again: bool = False,
    ) -> None:
        """Send a request whose body is known, to its node.

        Raises:
            Refusal: The token must not use the model.
        """
        endpoint, request, caller, body, _, fields = incoming
        limits = caller.limits
        rewriter = None if endpoint.effect is Effect.CHANGE else route.upstream.rewriter
        changed = None
        if body is not None and rewriter is not None:
            changed = rewriter.rewrite(
                endpoint,
                fields,
                counted=limits.tokens_per_day is not None,
                allowed=limits.allow if limits.models else None,
                choice=route.choice,
            )
        if body is not None and limits.models:
            names = named_models(body if changed is None else changed.body)
            limits.check_models(names, caller.name)
        exchange.answer_headers = [*route.headers]
        if changed is not None:
            if exchange.tracker is not None:
                exchange.tracker.choose(changed.model, changed.role)
            exchange.answer_headers += changed.headers
            body, request = changed.body, with_length(request, len(changed.body))
        elif again and body is not None:
            request = with_length(request, len(body))
        sent = SentRequest(self, incoming, route)
        self._send(
            exchange, request, body if changed or again else None, sent, again=again
        )

    def retry(
        self, exchange: Exchange, incoming: IncomingRequest, *, needs_model: bool
    ) -> bool:
        """Send a request to another node, as ``Resender.retry`` describes."""
        if len(self._router.upstreams) == 1 or not exchange.request_complete:
            return False
        if incoming.body is None and incoming.request.method not in SAFE_METHODS:
            return False
        if incoming.endpoint.effect is Effect.CHANGE:
            return False
        try:
            route = self._router.route(incoming)
            if needs_model and not route.has_model:
                return False
            self._send_collected(
                exchange,
                incoming._replace(body=incoming.body or b""),
                route,
                again=True,
            )
        except Refusal:
            return False
        exchange.flush_request()
        return True

    def _report(self, exchange: Exchange, use: Use) -> None:
        """Receive the use of a model that has ended."""
        if isinstance(exchange.route, SentRequest):
            exchange.route.upstream.recorder.add(use)
        self._observer.used(use)

    def _send(
        self,
        exchange: Exchange,
        request: Request,
        body: bytes | None,
        sent: SentRequest,
        *,
        again: bool = False,
    ) -> None:
        upstream = sent.upstream
        pool, key = upstream.pool, upstream.authorization
        exchange.repeatable = sent.is_repeatable
        head = request_head(
            request,
            host=pool.host,
            prefix=pool.prefix,
            without=self._left_out(exchange, sent, keys=bool(key)),
            authorization=key,
        )
        exchange.route = sent
        upstream.begin(sent.model, exchange.tracker)
        if again:
            exchange.begin_again(request, head, body or b"")
        else:
            exchange.begin(request, head, body)
        pool.send(exchange)

    def _left_out(
        self, exchange: Exchange, sent: SentRequest, *, keys: bool
    ) -> frozenset[bytes]:
        """Return the names of headers that are not sent on."""
        left_out = KEY_HEADERS if keys else self._without
        if exchange.changes_answer or sent.is_counted:
            # The gateway has to read the answer.
            left_out |= {b"accept-encoding"}
        return left_out

    async def watch(self) -> None:
        """Check the time limits of all connections until cancelled."""
        while True:
            await asyncio.sleep(_CHECK_EVERY_S)
            now = time.monotonic()
            for client in list(self._clients):
                client.check_time(now)
            self._leave_hung_nodes()
            for upstream in self._router.upstreams:
                upstream.pool.close_old()

    def _leave_hung_nodes(self) -> None:
        """Send the requests elsewhere that wait for a node which hangs."""
        hung = [one for one in self._router.upstreams if self._router.is_hung(one)]
        if not hung:
            return
        for client in list(self._clients):
            exchange = client.exchange
            if exchange is None or exchange.answer_started or not exchange.connected:
                continue
            sent = exchange.route
            if isinstance(sent, SentRequest) and sent.upstream in hung:
                sent.send_elsewhere(exchange)

    async def close(self) -> None:
        """Let running requests end for a short time, then close all connections."""
        try:
            async with asyncio.timeout(_STOP_WITHIN_S):
                await self._idle.wait()
        except TimeoutError:
            _log.info("requests_cut_off", requests=self.in_flight)
        for client in list(self._clients):
            client.shut()
        await self._lists.close()
        for upstream in self._router.upstreams:
            await upstream.pool.close()

    def _finished(self, token: str | None, exchange: Exchange) -> None:
        if isinstance(exchange.route, SentRequest):
            exchange.route.end(exchange)
        if token is not None:
            self._quotas.end(token)
        self.in_flight -= 1
        if not self.in_flight:
            self._idle.set()


@asynccontextmanager
async def relaying(
    settings: GatewaySettings,
    access: Access,
    router: Router,
    *,
    failed: Callable[[], None],
    quotas: Quotas | None = None,
    observer: GatewayObserver = NO_OBSERVER,
) -> AsyncIterator[str]:
    """Listen, and relay requests while the block runs.

    Args:
        settings: Where to listen, and the limits.
        access: Who may send what.
        router: Decides which node a request is sent to.
        failed: Called if the gateway stops by itself, which only a bug causes.
        quotas: What tokens have used today; nothing by default.
        observer: Receives each use that ended, and the number of running requests.

    Yields:
        The address of the gateway, such as ``http://127.0.0.1:11436``.

    Raises:
        CallerError: The address cannot be listened on.
    """
    relay = Relay(settings, access, router, quotas or Quotas(), observer)
    loop = asyncio.get_running_loop()
    try:
        listening = await loop.create_server(
            lambda: ClientConnection(relay), settings.host, settings.port, backlog=512
        )
    except OSError as error:
        raise CallerError(
            f"port {settings.port} on {settings.host}",
            listen_failure(error),
            "Choose another port, or port 0 for any free port",
        ) from error
    watching = asyncio.ensure_future(relay.watch())
    watching.add_done_callback(lambda task: None if task.cancelled() else failed())
    try:
        port = listening.sockets[0].getsockname()[1]
        yield msgspec.structs.replace(settings, port=port).url
    finally:
        listening.close()
        watching.cancel()
        await relay.close()
