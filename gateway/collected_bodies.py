"""Which requests are collected before they are sent, and checks of their bodies."""

from __future__ import annotations

from herdbook.gateway.access.checks import missing_role
from herdbook.gateway.protocol.answers import Refusal
from herdbook.gateway.protocol.endpoints import (
    FORMS,
    LOADS,
    MODEL_CARDS,
    NAMING,
    OPERATE,
    READ,
    SAFE_METHODS,
    SHOWS,
    Effect,
)
from herdbook.gateway.rewriting.requests import only_loads
from herdbook.gateway.routing.upstreams import IncomingRequest
from herdbook.gateway.settings import GatewaySettings


def must_collect(
    incoming: IncomingRequest, settings: GatewaySettings, *, several: bool
) -> bool:
    """Return whether a request may have to be changed, refused or sent by its body.

    Args:
        incoming: The request.
        settings: The settings of the gateway.
        several: Whether there are several nodes to choose from.

    Raises:
        Refusal: The models of the request cannot be checked, or are not those that
            the token may use.
    """
    endpoint, request, caller = incoming[:3]
    compressed = b"content-encoding" in request.values
    if caller.limits.models:
        return _has_checked_body(incoming, compressed=compressed)
    if compressed:
        return False
    if caller.role == READ and endpoint.path in LOADS:
        return True
    if several:
        return endpoint.effect is not Effect.NONE or endpoint.path in NAMING
    changes = endpoint.effect is Effect.USE or endpoint.path in SHOWS
    return changes and not settings.plain


def check_body(incoming: IncomingRequest, body: bytes | None) -> None:
    """Check a request that was collected.

    Args:
        incoming: The request.
        body: Its body; None if it was too long to be collected.

    Raises:
        Refusal: The models of the request cannot be checked, or it only loads or
            unloads a model, and the token has too low a role for that.
    """
    caller = incoming.caller
    if body is None:
        if caller.limits.models:
            raise Refusal(
                413,
                "The body is too large for a token that is limited to certain models.",
            )
        return
    only_reads = caller.role == READ and incoming.endpoint.path in LOADS
    if only_reads and only_loads(body):
        raise missing_role(caller, OPERATE)


def _has_checked_body(incoming: IncomingRequest, *, compressed: bool) -> bool:
    """Return whether the body of a token limited to models has to be checked.

    Raises:
        Refusal: The models of the request cannot be checked, or are not those that
            the token may use.
    """
    endpoint, request, caller = incoming[:3]
    named = endpoint.effect is not Effect.NONE or endpoint.path in NAMING
    if named and endpoint.path not in FORMS:
        if compressed:
            raise Refusal(
                403,
                "A token that is limited to certain models cannot use this "
                "Content-Encoding.",
            )
        return request.method not in SAFE_METHODS
    if request.method not in SAFE_METHODS:
        raise Refusal(
            403,
            f"A token that is limited to certain models cannot use "
            f"{endpoint.path[:200]}.",
        )
    card = endpoint.path.removeprefix(MODEL_CARDS)
    if card != endpoint.path:
        caller.limits.check_models([card], caller.name)
    return False
