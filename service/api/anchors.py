"""The API for anchors of other logs, which this log keeps."""

from __future__ import annotations

from typing import Final

import msgspec
from litestar import post
from litestar.handlers.base import BaseRouteHandler
from litestar.params import JSONBody

from herdbook.core.proof.anchor import parse_anchors
from herdbook.events.facts import AnchorReceived
from herdbook.service.api.responses import problems
from herdbook.service.context import service_of
from herdbook.service.errors import BadRequestError
from herdbook.service.http.request import AnyRequest
from herdbook.service.middleware import principal_of

LONGEST_ANCHOR: Final = 8_000
"""Maximum length of an anchor with its signatures, characters; usual are 300."""


class AnchorRequest(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True
):
    """An anchor of another log, to record in this one.

    Attributes:
        anchor: The text of the anchor, as `herdbook anchor` prints it.
    """

    anchor: str


class RecordedAnchor(msgspec.Struct, frozen=True, kw_only=True):
    """An anchor that was recorded.

    Attributes:
        position: Position of the event in this log; if the anchor was already recorded,
            the position of that event.
        origin: The log that the anchor belongs to.
        anchored_position: Number of events in that log when the anchor was made.
    """

    position: int
    origin: str
    anchored_position: int


@post(
    "/anchors",
    status_code=201,
    responses=problems(415),
    tags=["Log"],
    operation_id="recordAnchor",
)
async def record_anchor(
    request: AnyRequest, data: JSONBody[AnchorRequest]
) -> RecordedAnchor:
    """Record an anchor of another log as an event of this one.

    Later, comparing the other log with the anchor reveals changes to the events before
    it. Signatures are stored, not checked. Sending an anchor again records nothing.
    """
    if len(data.anchor) > LONGEST_ANCHOR:
        raise BadRequestError(
            "the anchor", f"is longer than {LONGEST_ANCHOR:,} characters"
        )
    found = parse_anchors(data.anchor, source="the anchor")
    if len(found) != 1:
        raise BadRequestError(
            "the body", f"has {len(found)} anchors", "Send one per request"
        )
    (anchor,) = found
    fact = AnchorReceived(
        origin=anchor.origin, position=anchor.position, text=anchor.text()
    )
    manager = service_of(request).manager
    with manager.acting_as(principal_of(request).actor):
        position = await manager.record_anchor(fact, made_at=anchor.time)
    return RecordedAnchor(
        position=position, origin=anchor.origin, anchored_position=anchor.position
    )


HANDLERS: Final[list[BaseRouteHandler]] = [record_anchor]
"""The handlers of this module."""
