"""A gateway with a manager: relay requests, and record them in its log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec

from herdbook.core import CallerError, Fleet, ModelManager, base_url
from herdbook.core.ollama.address import same_server
from herdbook.gateway.access import Access, Authenticate
from herdbook.gateway.recording import recording
from herdbook.gateway.relay import NO_OBSERVER, GatewayObserver, serve_gateway
from herdbook.gateway.rewriting import Rewriter
from herdbook.gateway.routing import FleetRouter
from herdbook.gateway.settings import GatewaySettings
from herdbook.gateway.spending import Quotas, followed_quotas
from herdbook.gateway.upstreams import OneUpstream, Upstream
from herdbook.gateway.uses import Watched


def listen_address(text: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT``.

    Raises:
        CallerError: The text has another form.
    """
    host, colon, port = text.rpartition(":")
    host = host.strip("[]")
    if not colon or not host or not port.isascii() or not port.isdecimal():
        raise _invalid(text)
    number = int(port)
    if number > 65_535:
        raise _invalid(text)
    return host, number


def _invalid(text: str) -> CallerError:
    return CallerError(
        f"the address {text[:100]!r}",
        "is not HOST:PORT",
        "Use an address and a port, such as 127.0.0.1:11436",
    )


def _check_target(settings: GatewaySettings) -> None:
    """Check that the gateway does not relay to itself.

    Clients find the gateway through ``OLLAMA_HOST``, and the gateway finds the server
    through it, so one value is easily used for both.

    Raises:
        CallerError: The server has the address to listen on.
    """
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    own = f"http://{host}:{settings.port}"
    if settings.port and same_server(base_url(own), settings.server):
        raise CallerError(
            f"the server {settings.server}",
            "is the address that the gateway itself listens on",
            "Set OLLAMA_HOST or --ollama to the Ollama server",
        )


@asynccontextmanager
async def recorded_gateway(
    manager: ModelManager,
    settings: GatewaySettings,
    *,
    authenticate: Authenticate | None,
    failed: Callable[[], None],
    observer: GatewayObserver = NO_OBSERVER,
) -> AsyncIterator[str]:
    """Serve a gateway while the block runs; its uses are recorded.

    Args:
        manager: The manager of the server.
        settings: Where to listen, where to relay to, and the limits.
        authenticate: Checks a token; None if there are no tokens.
        failed: Called if the gateway stops by itself, which only a bug causes.
        observer: Receives what the gateway does, for metrics.

    Yields:
        The address of the gateway.

    Raises:
        CallerError: The address cannot be listened on, or must not without tokens.
    """
    _check_target(settings)
    access = _checked_access(settings, authenticate)
    rewriter = None if settings.plain else Rewriter(manager.uses.latest)
    running: set[Watched] = set()
    async with (
        _quotas(manager, authenticate, failed) as quotas,
        recording(
            manager.uses, running=running, spending=quotas, failed=failed
        ) as recorder,
        serve_gateway(
            settings,
            access,
            OneUpstream(Upstream("", settings, recorder, rewriter, running=running)),
            failed=failed,
            quotas=quotas,
            observer=observer,
        ) as address,
    ):
        yield address


@asynccontextmanager
async def fleet_gateway(
    fleet: Fleet,
    settings: GatewaySettings,
    *,
    authenticate: Authenticate | None,
    failed: Callable[[], None],
    observer: GatewayObserver = NO_OBSERVER,
) -> AsyncIterator[str]:
    """Serve one gateway for all nodes of a fleet while the block runs.

    Args:
        fleet: The nodes.
        settings: Where to listen, and the limits; the address of the server in it is
            not used.
        authenticate: Checks a token; None if there are no tokens.
        failed: Called if the gateway stops by itself, which only a bug causes.
        observer: Receives what the gateway does, for metrics.

    Yields:
        The address of the gateway.

    Raises:
        CallerError: The address cannot be listened on, or must not without tokens.
        StoreError: The log cannot be read.
    """
    for manager in fleet.managers():
        _check_target(msgspec.structs.replace(settings, server=manager.url))
    access = _checked_access(settings, authenticate)
    async with (
        _quotas(fleet.home, authenticate, failed) as quotas,
        FleetRouter(fleet, settings, quotas, failed).following() as router,
        serve_gateway(
            settings,
            access,
            router,
            failed=failed,
            quotas=quotas,
            observer=observer,
        ) as address,
    ):
        yield address


@asynccontextmanager
async def _quotas(
    manager: ModelManager,
    authenticate: Authenticate | None,
    failed: Callable[[], None],
) -> AsyncIterator[Quotas]:
    """Return what tokens have used; without tokens, nothing has a limit."""
    if authenticate is None:
        yield Quotas()
        return
    async with followed_quotas(manager, failed) as quotas:
        yield quotas


def _checked_access(
    settings: GatewaySettings, authenticate: Authenticate | None
) -> Access:
    """Return who may send what.

    Raises:
        CallerError: The settings contradict each other, or others could reach the
            gateway without a token.
    """
    if settings.plain and settings.roles:
        raise CallerError(
            "the gateway",
            "cannot list roles and change no request",
            "Leave out --plain or --roles",
        )
    return Access(settings.host, settings.hosts, authenticate)
