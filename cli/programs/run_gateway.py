"""Run a gateway for ``gateway`` and ``serve``. Imported only where it is needed."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from herdbook.cli.invocation import Invocation
from herdbook.core import Fleet, ManagerSettings
from herdbook.core.concurrency.stopping import Stop, stoppable
from herdbook.gateway.access.checks import Authenticate, Caller
from herdbook.gateway.access.limits import Limits
from herdbook.gateway.observer import NO_OBSERVER, GatewayObserver
from herdbook.gateway.run import listen_address, serve_gateway
from herdbook.gateway.settings import GatewaySettings
from herdbook.service.auth.token_reload import TokenReloader
from herdbook.service.auth.tokens import Token, Tokens, take_from_environment
from herdbook.service.metrics_server import gateway_metrics

if TYPE_CHECKING:
    from herdbook.service.metrics import Metrics
    from herdbook.service.run import Companion

REFRESH_EVERY_S = 10.0
"""Seconds between two refreshes of the server."""


class GatewayOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a gateway.

    Attributes:
        listen: Address to listen on, ``HOST:PORT``.
        hosts: Accepted host names.
        strict: Whether to answer 503 while uses cannot be recorded.
        plain: Whether to change no request.
        roles: Whether lists of models contain the roles.
        metrics: Address for metrics, ``HOST:PORT``; empty for none.
    """

    listen: str
    hosts: tuple[str, ...]
    strict: bool
    plain: bool
    roles: bool
    metrics: str = ""

    def settings(self) -> GatewaySettings:
        """Return the settings of the gateway.

        Raises:
            CallerError: The address to listen on is not valid.
        """
        host, port = listen_address(self.listen)
        return GatewaySettings(
            host=host,
            port=port,
            hosts=self.hosts,
            strict=self.strict,
            plain=self.plain,
            roles=self.roles,
        )


def authenticator(fixed: tuple[Token, ...], file: Path | None) -> Authenticate | None:
    """Return what checks the tokens of the service; None without tokens.

    Args:
        fixed: The tokens of the environment.
        file: The token file; changes of it apply within a second.

    Raises:
        InvalidServiceError: The file is not valid.
    """
    source = TokenReloader(fixed, file)
    if not source.tokens:
        return None
    known = Tokens(source.tokens)

    def authenticate(secret: str) -> Caller | None:
        nonlocal known
        if source.refresh():
            known = Tokens(source.tokens)
        user = known.principal(secret)
        if user is None:
            return None
        limits = Limits(**msgspec.structs.asdict(user.limits))
        role = user.role.value
        return Caller(name=user.name, actor=user.actor, role=role, limits=limits)

    return authenticate


def companion(options: GatewayOptions, authenticate: Authenticate | None) -> Companion:
    """Return what serves a gateway next to the service.

    Args:
        options: The options of the gateway.
        authenticate: Checks a token; None if there are no tokens.

    Raises:
        CallerError: The address to listen on is not valid.
    """
    settings = options.settings()

    def served(
        fleet: Fleet, metrics: Metrics, failed: Callable[[], None]
    ) -> AbstractAsyncContextManager[str]:
        return serve_gateway(
            fleet,
            settings,
            authenticate=authenticate,
            failed=failed,
            observer=metrics.gateway,
        )

    return served


async def serve_until_stopped(
    invocation: Invocation, options: GatewayOptions, tokens: Path | None
) -> None:
    """Print the address, then relay requests until SIGINT or SIGTERM."""
    with stoppable() as stop:
        await _serve(invocation, options, tokens, stop)


async def _serve(
    invocation: Invocation, options: GatewayOptions, tokens: Path | None, stop: Stop
) -> None:
    settings = options.settings()
    authenticate = authenticator(take_from_environment(os.environ), tokens)
    opened = Fleet.open(
        invocation.log,
        ollama=invocation.ollama,
        node=invocation.node,
        actor="gateway",
        registry=invocation.registry,
        settings=ManagerSettings(
            refresh_timeout_s=5.0, reconcile_every_s=REFRESH_EVERY_S
        ),
    )
    with _metrics(options.metrics) as (observer, metrics):
        async with opened as fleet:
            served = serve_gateway(
                fleet,
                settings,
                authenticate=authenticate,
                failed=stop.request,
                observer=observer,
            )
            servers = ", ".join(manager.url for manager in fleet.managers())
            async with served as address:
                # What the start has made is mostly code and never becomes garbage:
                # collections, which block the event loop, need not look at it.
                gc.freeze()
                _write_start(invocation, address, servers, metrics)
                stop.started()
                await stop.requested.wait()


@contextmanager
def _metrics(listen: str) -> Iterator[tuple[GatewayObserver, str]]:
    """Serve metrics if an address is given; yield the observer, and their URL."""
    if not listen:
        yield NO_OBSERVER, ""
        return
    with gateway_metrics(*listen_address(listen)) as (metrics, url):
        yield metrics, url


def _write_start(
    invocation: Invocation, address: str, server: str, metrics: str
) -> None:
    screen = invocation.screen
    if invocation.json:
        log = str(invocation.log)
        started = {"address": address, "server": server, "log": log}
        screen.write_json(
            started | ({"metrics": metrics} if metrics else {}), in_lines=True
        )
    else:
        screen.write(address)
        if metrics:
            screen.write(f"Metrics: {metrics}")
        screen.write(
            f"Forwarding to {server}. Log: {invocation.log}. Stop with Ctrl-C."
        )
    screen.stream.flush()
