"""The plots of growth: measured from small logs, and drawn from the kept run."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest

from benchmarks.growth import DOCS, Reference, measure
from benchmarks.plots import HEIGHT, Growth, Line, draw

REFERENCE = msgspec.json.decode((DOCS / "growth.json").read_bytes(), type=Reference)
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("name", ["events", "models"])
def test_docs_have_the_plot_of_the_kept_run(name: str) -> None:
    drawn = draw(getattr(REFERENCE, name))

    assert (DOCS / f"growth-{name}.svg").read_text("utf-8") == drawn


def test_kept_run_has_the_whole_range() -> None:
    assert REFERENCE.events.sizes == [1_000, 10_000, 100_000, 1_000_000]
    assert REFERENCE.models.sizes == [10, 100, 1_000, 10_000]


async def test_every_duration_is_measured_at_every_size(tmp_path: Path) -> None:
    measured = await measure(
        tmp_path, events=(30, 60), models=(2, 3), few_models=2, some_events=40
    )

    for growth, kept in (
        (measured.events, REFERENCE.events),
        (measured.models, REFERENCE.models),
    ):
        assert [line.what for line in growth.lines] == [
            line.what for line in kept.lines
        ]
        for line in growth.lines:
            assert len(line.seconds) == len(growth.sizes)
            assert min(line.seconds) > 0


def test_ten_times_the_duration_is_the_same_way_up() -> None:
    lines = [
        Line(what="slow", seconds=[0.01, 0.1, 1.0]),
        Line(what="fast", seconds=[0.001, 0.001, 0.001]),
    ]
    growth = Growth(of="events", fixed="1 model", sizes=[10, 100, 1000], lines=lines)
    drawn = ET.fromstring(draw(growth))

    slow, fast = (
        [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
        for line in drawn.iter(f"{SVG}polyline")
    )
    steps = {round(before[1] - after[1]) for before, after in pairwise(slow)}
    assert len(steps) == 1
    assert steps.pop() > 0
    assert len({y for _, y in fast}) == 1
    labels = [
        (text.text, float(text.attrib["y"]))
        for text in drawn.iter(f"{SVG}text")
        if text.attrib["text-anchor"] == "start"
    ]
    assert [text for text, _ in labels] == ["slow", "fast"]
    assert all(0 < y < HEIGHT for _, y in labels)


def test_labels_do_not_overlap() -> None:
    lines = [Line(what=f"line {n}", seconds=[0.001, 0.001]) for n in range(8)]
    growth = Growth(of="events", fixed="1 model", sizes=[10, 100], lines=lines)
    drawn = ET.fromstring(draw(growth))

    heights = sorted(
        float(text.attrib["y"])
        for text in drawn.iter(f"{SVG}text")
        if text.attrib["text-anchor"] == "start"
    )
    assert len(heights) == len(lines)
    assert min(after - before for before, after in pairwise(heights)) >= 14
