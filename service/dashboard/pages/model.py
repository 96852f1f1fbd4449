"""The page of one model: facts with sources, states, timeline, settings, history."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Final, NamedTuple

from litestar import Response, get
from litestar.params import FromPath, FromQuery, QueryParameter
from markupsafe import Markup

from herdbook.core import (
    AmbiguousNodeError,
    Cause,
    HistoryEntry,
    ModelState,
    ModelStatus,
    RecordedEvent,
)
from herdbook.core.errors.suggestions import similar_models
from herdbook.core.history.explain import Link
from herdbook.events.facts import ConfigurationChanged
from herdbook.events.streams import model_stream
from herdbook.presentation import facts, wording
from herdbook.projections.sentences import setting_text
from herdbook.service.api.parameters import name_of
from herdbook.service.dashboard import forms as editing
from herdbook.service.dashboard import model_events
from herdbook.service.dashboard.actions.buttons import buttons_for
from herdbook.service.dashboard.charts.timeline import (
    LANES,
    Lane,
    timeline,
    timeline_data,
    window_of,
)
from herdbook.service.dashboard.event_list import EventEntry, event_entries
from herdbook.service.dashboard.layout import redirect, render
from herdbook.service.dashboard.level_charts import SPANS, level_charts, span_of
from herdbook.service.dashboard.links import joined_link
from herdbook.service.dashboard.model_events import NewestEvents
from herdbook.service.dashboard.model_facts import abilities, figures, known_facts
from herdbook.service.dashboard.model_rows import row_of
from herdbook.service.dashboard.page_request import PageRequest, visit
from herdbook.service.http.request import AnyRequest

PAGE: Final = 25
"""Events of the history on one page."""

Before = Annotated[int | None, QueryParameter(ge=1, lt=1 << 53)]


class Setter(NamedTuple):
    """A setting with its value, and the event that set it."""

    name: str
    text: str
    event: RecordedEvent | None
    note: str


@get("/models/{name:str}", include_in_schema=False)
async def model_page(
    request: AnyRequest,
    name: FromPath[str],
    span: FromQuery[str] = "",
    before: Before = None,
) -> Response[str]:
    """Show one model.

    Raises:
        InvalidNameError: The name is not valid.
    """
    try:
        page = await visit(request, model=name_of(name))
    except AmbiguousNodeError as error:  # the list shows which nodes have it
        return redirect(joined_link("/", {"find": error.model}))
    manager = page.manager
    status = page.read_model.status(name_of(name))
    stream = model_stream(status.node, status.name)
    end = page.read_model.position
    newest = await model_events.newest_events(manager, status.name, stream, until=end)
    history = await model_events.page(
        manager, stream, newest, before=min(before or end + 1, end + 1), limit=PAGE
    )
    work = page.operations().get((status.node, status.name))
    return await render(
        page,
        "model.html",
        title=status.name,
        row=row_of(page, status, page.operations()),
        buttons=buttons_for(page, status, work),
        since=facts.since_text(status, page.now),
        why=_why(status, newest),
        facts=known_facts(page, status),
        fact_times={"used": status.last_used_at},
        digests={"weights": status.weights, "manifest": status.digest},
        abilities=abilities(page, status),
        drawn=(drawn := _timeline(page, newest, span)),
        charts=await level_charts(page, _shown_span(drawn), status.name)
        if status.version
        else [],
        setters=(setters := await _setters(page, status, newest)),
        pending=_pending(status, setters, newest),
        parameters=_parameters(status),
        fields=editing.fields_of(editing.texts_of(status.settings)),
        editing=editing,
        figures=figures(page, status),
        lineage=await _lineage(page, status, newest),
        history=event_entries(history.entries),
        older=history.older,
        missing=history.missing,
        newer=before is not None,
        problem=_problem(page, status),
        similar=[] if status.version else _similar(page, status.name),
    )


def _similar(page: PageRequest, name: str) -> list[str]:
    """Return present models that may be meant by the name of an unknown one."""
    present = [one.name for one in page.read_model.records() if one.present]
    return similar_models(name, present)


def _why(status: ModelStatus, newest: NewestEvents) -> EventEntry | None:
    """Return the event that led to the current state, or the last reload after it."""
    event = facts.state_event(status, newest.entries)
    return next(iter(event_entries([event] if event else [])), None)


class Drawn(NamedTuple):
    """A timeline with its labels.

    Attributes:
        picture: The bars.
        labels: The names of its lanes.
        spans: The periods to choose from, each with whether it is shown.
        whole: Whether it has all events of the model.
    """

    picture: Markup
    labels: list[str]
    spans: list[tuple[str, bool]]
    whole: bool


def _timeline(page: PageRequest, newest: NewestEvents, span: str) -> Drawn | None:
    if not newest.entries:
        return None
    chosen = span if span in SPANS else _fitting(newest, page.now.at)
    window = window_of(newest.entries, page.now.at, SPANS[chosen])
    return Drawn(
        timeline(
            timeline_data(newest.entries),
            window,
            page.now,
            end="then" if page.past else "now",
        ),
        [_LANE_WORDS[lane] for lane in LANES],
        [(name, name == chosen) for name in SPANS],
        newest.whole,
    )


def _shown_span(drawn: Drawn | None) -> str:
    """Return the part of time that the timeline shows; the charts show the same."""
    shown = [name for name, here in drawn.spans if here] if drawn else []
    return span_of(shown[0] if shown else "")


_LANE_WORDS: Final = {
    Lane.PULL: "pulling",
    Lane.LOAD: "loading",
    Lane.LOADED: "in memory",
    Lane.USED: "used",
}


def _fitting(newest: NewestEvents, now: datetime) -> str:
    """Return the initial period: the last week, if there is more than that."""
    first, last = newest.entries[0].occurred_at, newest.entries[-1].occurred_at
    week = timedelta(days=7)
    return "week" if now - first > 2 * week and now - last < week else "all"


async def _setters(
    page: PageRequest, status: ModelStatus, newest: NewestEvents
) -> list[Setter]:
    """Return the present settings, with who set each."""
    names = sorted(status.settings)
    events = await model_events.setters(page.manager, newest, names)
    return [
        Setter(
            name,
            setting_text(status.settings[name]),
            events.get(name),
            _note(events.get(name)),
        )
        for name in names
    ]


def _parameters(status: ModelStatus) -> list[tuple[str, str]]:
    """Return the model's own parameters that no setting overrides, as texts."""
    return [
        (name, setting_text(value))
        for name, value in sorted(status.parameters.items())
        if name not in status.settings
    ]


def _pending(
    status: ModelStatus, setters: list[Setter], newest: NewestEvents
) -> list[str]:
    """Return the settings of a loaded model that apply at its next load."""
    if status.state is not ModelState.LOADED or status.since is None:
        return []
    reloads = (
        entry.recorded_at
        for entry in newest.entries
        if entry.type in _RELOADED and entry.cause is Cause.COMMAND
    )
    applied = max([status.since, *reloads])
    return [
        one.name
        for one in setters
        if one.name in _AT_LOAD or one.name.startswith("options.")
        if one.event is not None and one.event.recorded_at > applied
    ]


_AT_LOAD: Final = {"num_ctx", "temperature", "keep_alive"}
"""Settings that a load uses, besides the options; others apply at once."""

_RELOADED: Final = {
    "ReloadCompleted",
    "ReloadUnchanged",
    "RunnerChanged",
    "KeepAliveRenewed",
}
"""Events of a load of a model that is already loaded."""


def _note(event: RecordedEvent | None) -> str:
    if event is None or not isinstance(event.data, ConfigurationChanged):
        return ""
    return event.data.note


class ExplanationEvent(NamedTuple):
    """An event that explains a state, and its relation to it."""

    link: str
    entry: HistoryEntry | RecordedEvent
    who: str


async def _lineage(
    page: PageRequest, status: ModelStatus, newest: NewestEvents
) -> list[ExplanationEvent]:
    """Return the explanation of the state; of a long stream, only the causing event."""
    if not status.version:
        return []
    if newest.whole:
        found = await page.manager.why(status.name, page.read_model)
        return [
            ExplanationEvent(
                wording.LINKS[one.link], one.entry, wording.who_text(one.entry)
            )
            for one in found.ancestors
        ]
    why = _why(status, newest)
    link = wording.LINKS[Link.STATE]
    return [] if why is None else [ExplanationEvent(link, why.event, why.who)]


def _problem(page: PageRequest, status: ModelStatus) -> str:
    """Return the error of the last operation, if the log does not have it."""
    if page.past or status.last_failure is not None:
        return ""
    own = (status.name, status.node)
    known = [o for o in page.service.operations.all() if (o.model, o.node) == own]
    last = max(known, key=lambda one: one.started_at, default=None)
    if last is None or last.error is None:
        return ""
    return f"The last {last.kind} failed: {last.error.detail}"
