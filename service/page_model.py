"""One model: what is known of it and from where, its path, its time, its history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Final, NamedTuple

from litestar import Request, Response, get
from litestar.params import Parameter

from herdbook.core import (
    Capability,
    HistoryEntry,
    ModelStatistics,
    ModelStatus,
    RecordedEvent,
)
from herdbook.events.facts import ConfigurationChanged
from herdbook.events.streams import model_stream
from herdbook.presentation import facts, wording
from herdbook.presentation.wording import NOTHING, SOURCES
from herdbook.projections.history import HistoryView
from herdbook.projections.sentences import bytes_text, duration_text
from herdbook.service import editing, model_events
from herdbook.service.asking import name_of
from herdbook.service.deeds import buttons_of
from herdbook.service.model_events import Trail
from herdbook.service.page_frame import Visit, render, visit
from herdbook.service.page_herd import row_of, works_of
from herdbook.service.state_diagram import state_diagram
from herdbook.service.timeline import LANES, Lane, timeline, trail_of, window_of

SPANS: Final = {
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(days=7),
    "all": None,
}
"""The stretches of time that a timeline can show."""

PAGE: Final = 25
"""Events of the history on one page."""

Before = Annotated[int | None, Parameter(ge=1, lt=1 << 53)]


class Abilities(NamedTuple):
    """What a model can or cannot do, of those known from one source.

    Attributes:
        can: Whether it can.
        names: What, in words.
        source: Where that comes from.
        evidence: What was seen there.
    """

    can: bool
    names: str
    source: str
    evidence: str


class Setter(NamedTuple):
    """A setting that is in force, and who made it so."""

    name: str
    text: str
    event: RecordedEvent | None
    note: str


@get("/models/{name:str}", include_in_schema=False)
async def model_page(
    request: Request, name: str, span: str = "", before: Before = None
) -> Response[str]:
    """Show one model.

    Raises:
        InvalidNameError: It is no name.
    """
    here = await visit(request)
    herd = here.service.herd
    status = here.moment.status(name_of(name))
    stream = model_stream(status.node, status.name)
    trail = await model_events.trail(herd, stream, until=here.moment.position)
    changes = await model_events.configured(
        herd, status.name, until=here.moment.position
    )
    until = min(before or here.moment.position + 1, here.moment.position + 1)
    history = await model_events.newest(herd, stream, before=until, limit=PAGE)
    work = works_of(here).get(status.name)
    return await render(
        here,
        "model.html",
        title=status.name,
        row=row_of(here, status, works_of(here)),
        buttons=buttons_of(here, status, work),
        since=facts.since_text(status, here.now),
        why=_why(status, trail),
        facts=_facts(here, status),
        abilities=_abilities(here, status),
        drawn=_timeline(here, trail, span),
        setters=setters_of(status, changes),
        fields=editing.fields_of(editing.texts_of(status.settings)),
        editing=editing,
        figures=await _figures(here, status, trail),
        lineage=await _lineage(here, status, trail),
        history=told(history.events),
        older=history.older,
        newer=before is not None,
        problem=_problem(here, status),
    )


class Told(NamedTuple):
    """An event in a list."""

    event: RecordedEvent
    sentence: str
    who: str


def told(events: Sequence[RecordedEvent]) -> list[Told]:
    """Return events as lists tell them."""
    view = HistoryView()
    for event in events:
        view.apply(event)
    return [
        Told(event, entry.sentence, wording.who_text(entry))
        for event, entry in zip(events, view.entries, strict=True)
    ]


def _why(status: ModelStatus, trail: Trail) -> Told | None:
    """Return the event that led to the present state."""
    position = status.why.position if status.why else None
    events = [event for event in trail.events if event.position == position]
    return next(iter(told(events)), None)


def _facts(here: Visit, status: ModelStatus) -> list[tuple[str, str, str]]:
    """Return facts with their names, and where each comes from."""
    shared_with = facts.sharing(status, here.moment.statuses())
    trained = status.context_trained
    source = SOURCES[status.context_source] if status.context_source else ""
    temperature = status.temperature
    found = [
        ("weights", facts.weights_text(status, shared_with), "server: show"),
        ("family", status.family or "", "server: show"),
        ("manifest", (status.digest or "")[:12], "server: tags"),
        ("trained for", _tokens(trained), source),
        ("configured", _tokens(status.context_configured), "num_ctx"),
        ("in effect", _tokens(status.context_in_effect), "server: runners"),
        (
            "temperature",
            "" if temperature is None else f"{temperature:g}",
            SOURCES[status.temperature_source] if status.temperature_source else "",
        ),
        ("used", facts.uses_text(status, here.now), "this log"),
    ]
    always = {"weights", "trained for", "configured", "in effect", "used"}
    return [
        (name, text or NOTHING, where if text and text != NOTHING else "")
        for name, text, where in found
        if text or name in always
    ]


def _tokens(number: int | None) -> str:
    return "" if number is None else f"{number:,} tokens of context"


def _abilities(here: Visit, status: ModelStatus) -> list[Abilities]:
    known = here.moment.capabilities(status.name)
    groups: dict[tuple[bool, str], list[str]] = {}
    for name, one in known.items():
        groups.setdefault((one.value, SOURCES[one.source]), []).append(name)
    return [
        Abilities(can, ", ".join(names), source, _evidence(known, names))
        for (can, source), names in groups.items()
    ]


def _evidence(known: Mapping[str, Capability], names: Sequence[str]) -> str:
    seen = [f"{name}: {known[name].evidence}" for name in names if known[name].evidence]
    return "; ".join(seen)


class Drawn(NamedTuple):
    """A timeline with the words beside it.

    Attributes:
        picture: The bars.
        labels: The names of its lanes.
        spans: The stretches that one can choose, each with whether it is shown.
        whole: Whether all of the model's events were looked at.
    """

    picture: str
    labels: list[str]
    spans: list[tuple[str, bool]]
    whole: bool


def _timeline(here: Visit, trail: Trail, span: str) -> Drawn | None:
    if not trail.events:
        return None
    age = here.now.at - trail.events[0].occurred_at
    chosen = span if span in SPANS else _fitting(age)
    window = window_of(trail.events, here.now.at, SPANS[chosen])
    return Drawn(
        timeline(
            trail_of(trail.events), window, here.now, end="then" if here.past else "now"
        ),
        [
            "fetched" if lane == "pull" else _LANE_WORDS.get(lane, lane)
            for lane in LANES
        ],
        [(name, name == chosen) for name in SPANS],
        trail.whole,
    )


_LANE_WORDS: Final = {
    Lane.PULL: "fetched",
    Lane.LOAD: "loading",
    Lane.LOADED: "in memory",
    Lane.USED: "used",
}


def _fitting(age: timedelta) -> str:
    """Return the stretch to begin with: all of a young model, else the last week."""
    return "all" if age <= timedelta(days=14) else "week"


def setters_of(status: ModelStatus, changes: Sequence[RecordedEvent]) -> list[Setter]:
    """Return the settings in force with who set each; changes come newest first."""
    found = []
    for name, value in sorted(status.settings.items()):
        event = next((one for one in changes if _sets(one, name)), None)
        note = ""
        if event is not None and isinstance(event.data, ConfigurationChanged):
            note = event.data.note
        found.append(Setter(name, editing.typed(value), event, note))
    return found


def _sets(event: RecordedEvent, name: str) -> bool:
    return isinstance(event.data, ConfigurationChanged) and name in event.data.set


class Figures(NamedTuple):
    """What is counted of a model.

    Attributes:
        rows: Names and numbers.
        diagram: The states with the path taken.
    """

    rows: list[tuple[str, str]]
    diagram: str


async def _figures(here: Visit, status: ModelStatus, trail: Trail) -> Figures | None:
    if here.past:
        counted = model_events.counted(trail)
    else:
        counted = await here.service.herd.statistics(status.name)
    if counted is None or not status.version:
        return None
    return Figures(
        [*_counts(counted), *_times(counted, status, here)],
        state_diagram(counted.transitions, status.state),
    )


def _counts(counted: ModelStatistics) -> list[tuple[str, str]]:
    fetched = counted.fetched_bytes
    rate = wording.rate_text(counted.pull_rate_bytes_s)
    mean = counted.mean_load_seconds
    rows = [
        ("pulls and updates", f"{counted.pulls:,}"),
        ("fetched", wording.joined([bytes_text(fetched), rate]) if fetched else ""),
        ("stopped", f"{counted.pulls_stopped:,}" if counted.pulls_stopped else ""),
        ("loads", f"{counted.loads:,}"),
        (
            "took",
            f"{duration_text(mean)} on average, "
            f"{duration_text(counted.longest_load_seconds)} at most"
            if mean is not None
            else "",
        ),
        ("uses", f"{counted.uses:,}"),
        ("unloads", _by_word(counted.unloads)),
        ("failures", _by_word(counted.failures)),
    ]
    return [(name, text) for name, text in rows if text]


def _by_word(counts: dict[str, int]) -> str:
    words = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {word.replace('_', ' ')}" for word, count in words)


def _times(
    counted: ModelStatistics, status: ModelStatus, here: Visit
) -> list[tuple[str, str]]:
    """Return how long it was in each state, the present stay included."""
    seconds = dict(counted.seconds_in)
    if counted.since is not None:
        stay = max((here.now.at - counted.since).total_seconds(), 0.0)
        seconds[status.state.value] = seconds.get(status.state.value, 0.0) + stay
    told_ = sorted(seconds.items(), key=lambda item: -item[1])
    return [
        (f"time {state.replace('_', ' ')}", duration_text(each))
        for state, each in told_
        if each >= 0.05
    ]


class Ancestor(NamedTuple):
    """An event that a state goes back to, and how."""

    link: str
    entry: HistoryEntry
    who: str


async def _lineage(here: Visit, status: ModelStatus, trail: Trail) -> list[Ancestor]:
    """Return what led to the state; of the past, the one event that made it."""
    if not status.version:
        return []
    if not here.past:
        found = await here.service.herd.why(status.name)
        return [
            Ancestor(wording.LINKS[one.link], one.entry, wording.who_text(one.entry))
            for one in found.ancestors
        ]
    why = _why(status, trail)
    if why is None:
        return []
    view = HistoryView()
    view.apply(why.event)
    return [Ancestor("led to the state", view.entries[0], why.who)]


def _problem(here: Visit, status: ModelStatus) -> str:
    """Return what went wrong with the last operation, where the log does not say it."""
    if here.past or status.last_failure is not None:
        return ""
    known = [o for o in here.service.operations.all() if o.model == status.name]
    last = max(known, key=lambda one: one.started_at, default=None)
    if last is None or last.error is None:
        return ""
    return f"The last {last.kind} came to nothing: {last.error.detail}"
