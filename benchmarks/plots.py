"""Draw how durations grow, as SVG with logarithmic axes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import msgspec
from markupsafe import Markup

from herdbook.service.dashboard.charts.markup import element, picture

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 236, 16, 44
LINE_HEIGHT = 18
COLOURS = (
    *("#0b6e99", "#c2410c", "#3f7d20", "#7c3aed"),
    *("#b91c6b", "#57534e", "#0f766e", "#a16207"),
)

STYLE = """
text { font: 13px system-ui, sans-serif; fill: #333 }
.grid { stroke: #ddd } .line { fill: none; stroke-width: 2 }
.frame { fill: #fff; stroke: #999 }
"""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """The durations of one subject.

    Attributes:
        what: The subject.
        seconds: The duration at each size, s.
    """

    what: str
    seconds: list[float]


class Growth(msgspec.Struct, frozen=True, kw_only=True):
    """How durations grow with a size.

    Attributes:
        of: What is counted by the sizes.
        fixed: What stayed the same, in words.
        sizes: The sizes, growing.
        lines: The durations.
    """

    of: str
    fixed: str
    sizes: list[int]
    lines: list[Line]


def draw(growth: Growth) -> str:
    """Return a plot: both axes are logarithmic, with a line for each subject."""
    seconds = [each for line in growth.lines for each in line.seconds]
    across = _Axis(growth.sizes[0], growth.sizes[-1], LEFT, WIDTH - RIGHT)
    up = _Axis(min(seconds), max(seconds), HEIGHT - BOTTOM, TOP)
    content = [
        element("style", Markup(STYLE)),
        element("rect", width=WIDTH, height=HEIGHT, fill="#fff"),
        element(
            "rect",
            class_="frame",
            x=LEFT,
            y=TOP,
            width=WIDTH - LEFT - RIGHT,
            height=HEIGHT - TOP - BOTTOM,
        ),
        *_grid(across, up, growth),
        *_lines(across, up, growth),
    ]
    svg = picture(
        *content,
        title=f"Durations by number of {growth.of}; {growth.fixed}",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        width=WIDTH,
        height=HEIGHT,
    )
    return f"{svg}\n"


class _Axis:
    """An axis that begins and ends at powers of ten."""

    def __init__(self, least: float, most: float, begin: float, end: float) -> None:
        self._low = math.floor(round(math.log10(least), 6))
        self._high = max(math.ceil(round(math.log10(most), 6)), self._low + 1)
        self._begin, self._end = begin, end

    @property
    def powers(self) -> range:
        """The exponents of the marks."""
        return range(self._low, self._high + 1)

    def at(self, value: float) -> float:
        """Return the coordinate of a value."""
        share = (math.log10(value) - self._low) / (self._high - self._low)
        return self._begin + share * (self._end - self._begin)


def _grid(across: _Axis, up: _Axis, growth: Growth) -> Iterator[Markup]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    for power in across.powers:
        x = across.at(10**power)
        yield element("line", class_="grid", x1=x, x2=x, y1=TOP, y2=bottom)
        yield element(
            "text", f"{10**power:,}", x=x, y=bottom + 17, text_anchor="middle"
        )
    for power in up.powers:
        y = up.at(10.0**power)
        yield element("line", class_="grid", x1=LEFT, x2=right, y1=y, y2=y)
        yield _text(_duration(power), LEFT - 8, y + 4, "end")
    middle = (LEFT + right) / 2
    yield _text(f"{growth.of}; {growth.fixed}", middle, bottom + 36, "middle")


def _text(text: str, x: float, y: float, anchor: str) -> Markup:
    return element("text", text, x=x, y=y, text_anchor=anchor)


def _duration(power: int) -> str:
    """Return ten to the power, in seconds, as a label."""
    for unit, exponent in (("s", 0), ("ms", -3), ("µs", -6)):
        if power >= exponent:
            return f"{10 ** (power - exponent):,} {unit}"
    return f"1e{power} s"


def _lines(across: _Axis, up: _Axis, growth: Growth) -> Iterator[Markup]:
    labels = _label_heights([up.at(line.seconds[-1]) for line in growth.lines])
    for number, line in enumerate(growth.lines):
        colour = COLOURS[number % len(COLOURS)]
        spots = [
            (across.at(size), up.at(seconds))
            for size, seconds in zip(growth.sizes, line.seconds, strict=True)
        ]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        yield element("polyline", class_="line", points=points, stroke=colour)
        for x, y in spots:
            yield element("circle", cx=x, cy=y, r=3, fill=colour)
        x, y = spots[-1]
        yield element("line", x1=x, y1=y, x2=x + 10, y2=labels[number], stroke=colour)
        yield _text(line.what, x + 14, labels[number] + 4, "start")


def _label_heights(ends: Sequence[float]) -> list[float]:
    """Return where the labels stand: next to the ends, but not over each other."""
    order = sorted(range(len(ends)), key=lambda number: ends[number])
    heights, lowest = [0.0] * len(ends), float(TOP)
    for number in order:
        heights[number] = lowest = max(ends[number], lowest + LINE_HEIGHT)
    # What reaches below the frame moves up, with those that it meets.
    highest = float(HEIGHT - BOTTOM)
    for number in reversed(order):
        heights[number] = highest = min(heights[number], highest)
        highest -= LINE_HEIGHT
    return heights
