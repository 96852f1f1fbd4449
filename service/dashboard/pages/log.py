"""The log, newest events first, with filters and pages; and the page of one event."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final, NamedTuple

import msgspec
from litestar import Response, get
from litestar.params import FromPath, QueryParameter

from herdbook.core import Cause, HistoryFilter, LogPage, RecordedEvent
from herdbook.core.errors.suggestions import did_you_mean
from herdbook.events.archive_file import UNREADABLE
from herdbook.events.facts import FACTS
from herdbook.events.recorded import GENESIS
from herdbook.events.streams import model_stream
from herdbook.presentation.event_types import event_type_remedy, parse_event_type
from herdbook.presentation.times import FORMS, Now
from herdbook.presentation.wording import NOTHING
from herdbook.service.api import schemas as answers
from herdbook.service.dashboard import model_events
from herdbook.service.dashboard.event_list import entries_with_events
from herdbook.service.dashboard.layout import render
from herdbook.service.dashboard.page_request import PageRequest, visit
from herdbook.service.errors import BadRequestError, UnknownEventError
from herdbook.service.http.request import AnyRequest

PAGE: Final = 50
"""Events on one page."""

RELATED: Final = 200
"""Maximum number of events of one operation that are shown."""

TYPES: Final = tuple(sorted(fact.__name__ for fact in FACTS))
_FIELDS: Final = ("node", "model", "type", "cause", "actor", "since", "until")
Before = Annotated[int | None, QueryParameter(ge=1, lt=1 << 53)]


@get("/log", include_in_schema=False)
async def log_page(request: AnyRequest, before: Before = None) -> Response[str]:
    """Show the recorded events, newest first."""
    page = await visit(request)
    query = {name: request.query_params.get(name, "").strip() for name in _FIELDS}
    end = page.read_model.position + 1
    found = await page.service.manager.read_log(
        before=min(before or end, end),
        limit=PAGE,
        newest_first=True,
        stream_prefix=_prefix(page, query["model"]),
        chosen=_chosen(query, page.present, any_node=page.several),
    )
    names = sorted(status.name for status in page.read_model.statuses())
    return await render(
        page,
        "log.html",
        title="Log",
        events=entries_with_events(found.events),
        older=found.next,
        missing=found.missing,
        newest=before is None,
        query=query,
        filtered=any(query.values()),
        names=names,
        node_names=sorted(page.by_name) if page.several else [],
        types=TYPES,
        causes=list(Cause),
        forms=", ".join(FORMS),
    )


def _prefix(page: PageRequest, model: str) -> str:
    """Return the stream prefix of a filter; the name may be incomplete.

    It makes the search faster, but names a node: with several, ``_chosen`` filters.
    """
    if not model or (page.several and not page.node):
        return ""
    return model_stream(page.read_model.node, model)


def _chosen(query: Mapping[str, str], now: Now, *, any_node: bool) -> HistoryFilter:
    """Return the filter that a query describes.

    Args:
        query: The fields of the form.
        now: The current time, in the reader's zone.
        any_node: Whether there are several nodes, which may have the same model.

    Raises:
        BadRequestError: The type or cause is invalid.
        InvalidTimeError: A time cannot be read.
    """
    cause, actor = query["cause"], query["actor"]
    kinds = parse_event_type(query["type"])
    if query["type"] and not kinds:
        raise BadRequestError(
            f"{query['type'][:80]!r}",
            "is not an event type",
            event_type_remedy(query["type"]),
        )
    if cause and cause not in tuple(Cause):
        raise BadRequestError(
            f"{cause[:80]!r}",
            "is not a cause",
            f"{did_you_mean(cause, Cause)}Causes: {', '.join(Cause)}",
        )
    return HistoryFilter(
        types=frozenset(kinds) or None,
        causes=frozenset({Cause(cause)}) if cause else None,
        actors=(actor,) if actor else None,
        since=now.parse(query["since"]) if query["since"] else None,
        until=now.parse(query["until"]) if query["until"] else None,
        node=query["node"] or None,
        model=(query["model"] or None) if any_node else None,
    )


class Envelope(NamedTuple):
    """A field of an event's envelope.

    Attributes:
        name: Its name.
        text: Its value.
        link: Its link, if it has one.
        copied: Whether there is a button that copies it.
    """

    name: str
    text: str
    link: str = ""
    copied: bool = False


@get("/log/{position:int}", include_in_schema=False)
async def event_page(request: AnyRequest, position: FromPath[int]) -> Response[str]:
    """Show one event.

    Raises:
        UnknownEventError: The event does not exist.
    """
    page = await visit(request)
    if not 1 <= position <= page.read_model.position:
        raise UnknownEventError(
            f"event #{position}",
            "does not exist"
            if position > page.head or position < 1
            else "was recorded after the time shown",
            f"The last event is #{page.read_model.position}",
        )
    event = await model_events.event_at(page.service.manager, position)
    shown = entries_with_events([event])[0]
    related = await _related(page, event)
    return await render(
        page,
        "event.html",
        title=f"Event #{position}",
        shown=shown,
        envelope=_envelope(page, event),
        data=_json(event.data),
        whole=_json(answers.event(event)),
        hash_before=await _hash_before(page, position),
        related=entries_with_events(related),
        ends=page.read_model.position,
    )


async def _hash_before(page: PageRequest, position: int) -> str:
    if position == 1:
        return GENESIS
    try:
        return (await model_events.event_at(page.service.manager, position - 1)).hash
    except UNREADABLE:
        return f"in an archive: #{position - 1}"


async def _related(page: PageRequest, event: RecordedEvent) -> list[RecordedEvent]:
    """Return the other events of the operation, and the cause of this one."""
    if event.correlation_id is None:
        return []
    manager = page.service.manager
    chosen = HistoryFilter(correlation_id=event.correlation_id)
    try:
        earlier = await manager.read_log(
            before=event.position, limit=RELATED, newest_first=True, chosen=chosen
        )
    except UNREADABLE:
        earlier = LogPage(events=(), next=None)
    later = await manager.read_log(
        after=event.position,
        before=page.read_model.position + 1,
        limit=RELATED,
        chosen=chosen,
    )
    return [*reversed(earlier.events), *later.events]


def _envelope(page: PageRequest, event: RecordedEvent) -> list[Envelope]:
    now = page.present
    links = page.links
    return [
        Envelope("type", event.type, links.to("/log", type_=event.type)),
        Envelope("stream", event.stream, copied=True),
        Envelope("version", f"{event.version:,} in this stream"),
        Envelope(
            "occurred", f"{now.clock(event.occurred_at)} ({_iso(event.occurred_at)})"
        ),
        Envelope(
            "recorded", f"{now.clock(event.recorded_at)} ({_iso(event.recorded_at)})"
        ),
        Envelope("actor", event.actor, links.to("/log", actor=event.actor)),
        Envelope("cause", event.cause.value, links.to("/log", cause=event.cause.value)),
        Envelope("event id", event.event_id, copied=True),
        Envelope(
            "correlation id",
            event.correlation_id or NOTHING,
            copied=event.correlation_id is not None,
        ),
        Envelope(
            "causation id",
            event.causation_id or NOTHING,
            copied=event.causation_id is not None,
        ),
        Envelope("schema", str(event.schema)),
    ]


def _iso(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def _json(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
