"""The five states and their transitions, with those that a model has made.

The transitions come from the lifecycle (``presentation.diagram``); only the layout is
defined here. Transitions that the model has not made are drawn faintly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from markupsafe import Markup

from herdbook.core import ModelState
from herdbook.presentation.diagram import edges
from herdbook.presentation.facts import SYMBOLS
from herdbook.projections.sentences import counted
from herdbook.service.dashboard.charts.markup import element, picture

WIDTH: Final = 400
HEIGHT: Final = 300
_HALF_WIDTH: Final = 54
_HALF_HEIGHT: Final = 17


class Point(NamedTuple):
    """A point in the picture."""

    x: float
    y: float

    def towards(self, other: Point, share: float) -> Point:
        """Return the point at a share of the way to another."""
        return Point(
            self.x + (other.x - self.x) * share, self.y + (other.y - self.y) * share
        )


_PLACES: Final = {
    ModelState.LOADING: Point(200, 34),
    ModelState.NOT_PRESENT: Point(62, 128),
    ModelState.AVAILABLE: Point(338, 128),
    ModelState.ERROR: Point(112, 262),
    ModelState.LOADED: Point(288, 262),
}
_BEND: Final = 17


def state_diagram(counts: Mapping[str, int], state: ModelState) -> Markup:
    """Return the diagram.

    Args:
        counts: Number of transitions by ``from>to``.
        state: The current state.
    """
    ways = sorted(edges().items(), key=lambda way: counts.get(_key(*way[0]), 0))
    lines = [
        _way(source, to, events, counts.get(_key(source, to), 0))
        for (source, to), events in ways
    ]
    labels = [
        _label(source, to, counts[_key(source, to)])
        for (source, to), _ in ways
        if counts.get(_key(source, to))
    ]
    return picture(
        _arrowheads(),
        *lines,
        *(_box(each, here=each is state) for each in _PLACES),
        *labels,
        title=_summary(counts, state),
        class_="states",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
    )


def _key(source: ModelState, to: ModelState) -> str:
    return f"{source}>{to}"


def _summary(counts: Mapping[str, int], state: ModelState) -> str:
    gone = [
        f"{key.replace('_', ' ').replace('>', ' to ')} {counted(count, 'time')}"
        for key, count in sorted(counts.items(), key=lambda item: -item[1])
    ]
    here = f"State: {_word(state)}"
    return f"{here}. Transitions: {', '.join(gone) or 'none'}"


def _word(state: ModelState) -> str:
    return state.value.replace("_", " ")


def _box(state: ModelState, *, here: bool) -> Markup:
    place = _PLACES[state]
    box = element(
        "rect",
        x=place.x - _HALF_WIDTH,
        y=place.y - _HALF_HEIGHT,
        width=2 * _HALF_WIDTH,
        height=2 * _HALF_HEIGHT,
        rx=6,
    )
    words = element(
        "text",
        f"{SYMBOLS[state]} {_word(state)}",
        x=place.x,
        y=place.y + 4.5,
        text_anchor="middle",
    )
    return element("g", box, words, class_=f"box {state}{' here' if here else ''}")


def _arrowheads() -> Markup:
    return element("defs", *(_arrowhead(kind) for kind in ("gone", "open")))


def _arrowhead(kind: str) -> Markup:
    return element(
        "marker",
        element("path", d="M0,0 L8,4 L0,8 z"),
        id=f"head-{kind}",
        class_=f"head {kind}",
        viewBox="0 0 8 8",
        refX=7,
        refY=4,
        markerWidth=7,
        markerHeight=7,
        markerUnits="userSpaceOnUse",
        orient="auto",
    )


def _way(
    source: ModelState, to: ModelState, events: Sequence[str], count: int
) -> Markup:
    begin, bend, end = _curve(source, to)
    kind = "gone" if count else "open"
    text = (
        f"{_word(source)} to {_word(to)}, {counted(count, 'time')}: {', '.join(events)}"
    )
    return element(
        "path",
        element("title", text),
        d=f"M{begin.x:.1f},{begin.y:.1f} Q{bend.x:.1f},{bend.y:.1f} "
        f"{end.x:.1f},{end.y:.1f}",
        fill="none",
        stroke_width=min(1 + math.log2(count + 1) / 2, 4) if count else 1,
        marker_end=f"url(#head-{kind})",
        class_=f"way {kind}",
    )


def _label(source: ModelState, to: ModelState, count: int) -> Markup:
    begin, bend, end = _curve(source, to)
    # The middle of the curve; nearer to its start where curves cross.
    at = begin.towards(bend, 0.42).towards(bend.towards(end, 0.42), 0.42)
    return element(
        "text", f"{count:,}", x=at.x, y=at.y + 4, text_anchor="middle", class_="count"
    )


def _curve(source: ModelState, to: ModelState) -> tuple[Point, Point, Point]:
    """Return start, bend and end of a transition; opposite ones are separated."""
    one, other = _PLACES[source], _PLACES[to]
    length = math.dist(one, other)
    side = Point(-(other.y - one.y) / length, (other.x - one.x) / length)
    middle = one.towards(other, 0.5)
    bend = Point(middle.x + side.x * 2 * _BEND, middle.y + side.y * 2 * _BEND)
    return _edge_of(one, bend), bend, _edge_of(other, bend)


def _edge_of(place: Point, towards: Point) -> Point:
    """Return where a line from a box's centre leaves the box, with a margin."""
    across, down = towards.x - place.x, towards.y - place.y
    reach = min(
        (_HALF_WIDTH + 3) / abs(across) if across else math.inf,
        (_HALF_HEIGHT + 3) / abs(down) if down else math.inf,
    )
    return place.towards(towards, min(reach, 1.0))
