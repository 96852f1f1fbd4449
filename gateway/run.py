"""A gateway for the nodes of a log: relay requests, and record them there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from herdbook.core import CallerError, Fleet, ModelManager
from herdbook.gateway.access.checks import Access, Authenticate
from herdbook.gateway.access.quotas import Quotas, followed_quotas
from herdbook.gateway.observer import NO_OBSERVER, GatewayObserver
from herdbook.gateway.relay import relaying
from herdbook.gateway.routing.nodes import Nodes
from herdbook.gateway.routing.router import FleetRouter
from herdbook.gateway.settings import GatewaySettings


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


@asynccontextmanager
async def serve_gateway(
    fleet: Fleet,
    settings: GatewaySettings,
    *,
    authenticate: Authenticate | None,
    failed: Callable[[], None],
    observer: GatewayObserver = NO_OBSERVER,
) -> AsyncIterator[str]:
    """Serve one gateway for all nodes of a fleet while the block runs.

    Nodes that come and go meanwhile get requests and get none any more.

    Args:
        fleet: The nodes.
        settings: Where to listen, and the limits.
        authenticate: Checks a token; None if there are no tokens.
        failed: Called if the gateway stops by itself, which only a bug causes.
        observer: Receives what the gateway does, for metrics.

    Yields:
        The address of the gateway.

    Raises:
        CallerError: The address cannot be listened on, or must not without tokens.
        StoreError: The log cannot be read.
    """
    _check_nodes(fleet, settings)
    access = _checked_access(settings, authenticate)
    async with (
        _quotas(fleet.home, authenticate, failed) as quotas,
        Nodes(fleet, settings, quotas, failed).following() as nodes,
        relaying(
            settings,
            access,
            FleetRouter(nodes, settings),
            failed=failed,
            quotas=quotas,
            observer=observer,
        ) as address,
    ):
        yield address


def _check_nodes(fleet: Fleet, settings: GatewaySettings) -> None:
    """Check that the gateway does not relay to itself.

    Clients find the gateway through ``OLLAMA_HOST``, and the gateway finds the server
    through it, so one value is easily used for both.

    Raises:
        CallerError: A server has the address to listen on.
    """
    for manager in fleet.managers():
        if settings.is_at(manager.url):
            raise CallerError(
                f"the server {manager.url}",
                "is the address that the gateway itself listens on",
                "Set OLLAMA_HOST or --ollama to the Ollama server",
            )


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
            "cannot list roles while forwarding requests unchanged",
            "Leave out --plain or --roles",
        )
    return Access(settings.host, settings.hosts, authenticate)
