"""The charts: what they show for which data, and that text is escaped."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree as ET

import pytest

from herdbook.core import Cause, HistoryEntry, ModelState, Runner
from herdbook.presentation.diagram import edges
from herdbook.presentation.times import Now
from herdbook.service.dashboard.charts.colours import Colours
from herdbook.service.dashboard.charts.markup import element, percent
from herdbook.service.dashboard.charts.memory import (
    Sample,
    density_strip,
    memory_bar,
    memory_legend,
    progress_bar,
)
from herdbook.service.dashboard.charts.sampling import MOST, positions_of
from herdbook.service.dashboard.charts.state_diagram import state_diagram
from herdbook.service.dashboard.charts.timeline import (
    Ending,
    Lane,
    timeline,
    timeline_data,
    window_of,
)

START = datetime(2026, 11, 24, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
NOW = Now(START + timedelta(hours=2), UTC)
SVG = "{http://www.w3.org/2000/svg}"


def drawn(markup: str) -> ET.Element:
    """Return a picture, read; it is well formed and has no style of its own."""
    assert not re.search(r"\sstyle=|<style|<script|\son\w+=", markup)
    return ET.fromstring(markup)


def runner(name: str, size: int, vram: int) -> Runner:
    return Runner(name=name, digest=name * 8, size_bytes=size, size_vram_bytes=vram)


def entry(position: int, kind: str, minutes: float) -> HistoryEntry:
    at = START + timedelta(minutes=minutes)
    return HistoryEntry(
        position=position,
        version=position,
        stream="model/local/a:latest",
        model="a:latest",
        event_id=f"{position}",
        type=kind,
        sentence=f"what {kind} says",
        occurred_at=at,
        recorded_at=at,
        actor="cli:ann",
        cause=Cause.COMMAND,
        correlation_id=None,
    )


def entries(*kinds: tuple[str, float]) -> list[HistoryEntry]:
    return [entry(at, kind, minutes) for at, (kind, minutes) in enumerate(kinds, 1)]


def test_element_escapes_all_content() -> None:
    made = element("text", "<b>&", class_='"x', data_a="1", left_out=None)

    assert made == '<text class="&#34;x" data-a="1">&lt;b&gt;&amp;</text>'


@pytest.mark.parametrize(
    ("share", "result"), [(0, "0%"), (0.5, "50%"), (1 / 3, "33.333%"), (7, "100%")]
)
def test_percentage_stays_within_the_chart(share: float, result: str) -> None:
    assert percent(share) == result


def test_memory_bar_has_a_piece_for_each_runner() -> None:
    bar = drawn(
        memory_bar(
            [
                runner("big", 6_000_000_000, 3_000_000_000),
                runner("c", 2_000_000_000, 0),
            ],
            Colours([]),
        )
    )

    held = [r for r in bar.iter(f"{SVG}rect") if "held" in r.get("class", "")]
    gpu = [r for r in bar.iter(f"{SVG}rect") if "gpu" in r.get("class", "")]
    assert [(r.get("x"), r.get("width")) for r in held] == [
        ("0%", "75%"),
        ("75%", "25%"),
    ]
    assert [r.get("width") for r in gpu] == ["37.5%", "0%"]
    title = bar.find(f"{SVG}title")
    assert title is not None
    assert title.text == (
        "8.0 GB of memory in use: "
        "big 6.0 GB, 3.0 of 6.0 GB (50%) on the GPU; c 2.0 GB, CPU"
    )


def test_memory_legend_names_each_piece() -> None:
    runners = [runner("big", 6_000_000_000, 6_000_000_000), runner("c<", 10**9, 0)]

    legend = drawn(memory_legend(runners, Colours([])))

    items = ["".join(item.itertext()).strip() for item in legend.iter("li")]
    assert items == ["big 6.0 GB, GPU", "c< 1.0 GB, CPU"]
    swatches = [e.get("class") for e in legend.iter("span") if not e.text]
    classes = Colours([]).classes([one.name for one in runners])
    assert swatches == [f"swatch {each}" for each in classes]


def test_empty_memory_bar_is_not_drawn() -> None:
    assert memory_bar([], Colours([])) == ""


def test_memory_bar_of_one_runner_is_not_drawn() -> None:
    assert memory_bar([runner("a:1", 10, 0)], Colours([])) == ""


def test_memory_bar_escapes_its_labels() -> None:
    bar = drawn(
        memory_bar([runner("</title><script>x</script>", 10, 0)] * 2, Colours([]))
    )

    assert bar.find(f".//{SVG}script") is None


def test_progress_bar_is_as_long_as_the_share() -> None:
    bar = drawn(progress_bar(6_600_000_000, 17_400_000_000))

    done = [r.get("width") for r in bar.iter(f"{SVG}rect") if r.get("class") == "done"]
    assert done == ["37.931%"]
    assert bar.get("aria-label") == "6.6 of 17.4 GB (37%)"


def test_density_strip_is_high_where_events_are_dense() -> None:
    at = [0.0, 1.0, 3601.0]
    samples = [Sample(n, START + timedelta(seconds=s)) for n, s in enumerate(at, 1)]

    strip = drawn(density_strip(samples, chosen=START + HOUR, now=NOW))

    heights = [float(r.get("height", 0)) for r in strip.iter(f"{SVG}rect")]
    assert heights[0] > heights[1] > 0
    marks = [line.get("x1") for line in strip.iter(f"{SVG}line")]
    assert marks == ["50%"]


def test_density_strip_is_an_axis_of_time() -> None:
    at = [0, 0, 3600, 3600]
    samples = [Sample(n, START + timedelta(seconds=s)) for n, s in enumerate(at, 1)]

    strip = drawn(density_strip(samples, chosen=START, now=NOW))

    bars = [(r.get("x"), r.get("width")) for r in strip.iter(f"{SVG}rect")]
    assert bars == [("0%", "0.2%"), ("0%", "50%"), ("50%", "0.2%")]


@pytest.mark.parametrize("count", [0, 1])
def test_density_strip_of_few_events_is_not_drawn(count: int) -> None:
    samples = [Sample(1, START)] * count

    assert density_strip(samples, chosen=START, now=NOW) == ""


@pytest.mark.parametrize("head", [0, 1, 2, 119, 120, 121, 999, 1_000_000])
def test_samples_are_few_and_have_both_ends(head: int) -> None:
    positions = positions_of(head)

    assert len(positions) <= MOST + 1
    assert positions == sorted(set(positions))
    assert [*positions[:1], *positions[-1:]] == ([1, head] if head else [])


def test_samples_of_a_growing_log_are_reused() -> None:
    before, after = set(positions_of(10_000)), set(positions_of(10_050))

    assert len(after - before) <= 1


def test_timeline_has_a_span_for_a_finished_activity() -> None:
    data = timeline_data(
        entries(
            ("PullStarted", 0),
            ("PullCompleted", 3),
            ("LoadStarted", 5),
            ("ModelLoaded", 6),
            ("ModelUsed", 7),
            ("ModelUnloaded", 16),
        )
    )

    assert [(s.lane, s.ending) for s in data.spans] == [
        (Lane.PULL, Ending.DONE),
        (Lane.LOAD, Ending.DONE),
        (Lane.LOADED, Ending.DONE),
    ]
    assert data.uses == [START + timedelta(minutes=7)]


@pytest.mark.parametrize(
    ("last", "ending"),
    [
        ("PullFailed", Ending.FAILED),
        ("PullCancelled", Ending.STOPPED),
        ("PullInterrupted", Ending.STOPPED),
        ("ModelVanished", Ending.DONE),
    ],
)
def test_timeline_shows_how_a_pull_ended(last: str, ending: Ending) -> None:
    data = timeline_data(entries(("PullStarted", 0), (last, 2)))

    assert [span.ending for span in data.spans] == [ending]


def test_timeline_continues_unfinished_activities() -> None:
    data = timeline_data(entries(("ModelDiscovered", 0), ("ModelUsed", 3)))

    assert [(s.lane, s.end) for s in data.spans] == [(Lane.LOADED, None)]


def test_timeline_marks_failures_and_clips_at_its_start() -> None:
    events = entries(("PullStarted", 0), ("PullFailed", 100), ("PullStarted", 110))
    window = window_of(events, NOW.at, timedelta(hours=1))

    picture = drawn(timeline(timeline_data(events), window, NOW))

    bars = {
        r.get("class"): r
        for r in picture.iter(f"{SVG}rect")
        if "bar" in r.get("class", "")
    }
    assert bars["bar pull failed"].get("x") == "0%"
    assert bars["bar pull open"].get("width") == "16.667%"
    texts = [text.text for text in picture.iter(f"{SVG}text")]
    assert "▲" in texts
    assert texts[-1] == "now" or "now" in texts
    assert picture.get("aria-label") == (
        "Since 13:00:00: pulled 2 times, loaded 0 times, in memory 0 times, "
        "used 0 times"
    )


def test_timeline_joins_overlapping_uses() -> None:
    events = entries(
        ("ModelDiscovered", 0), *[("ModelUsed", 60 + n / 100) for n in range(9)]
    )
    window = window_of(events, NOW.at, None)

    picture = drawn(timeline(timeline_data(events), window, NOW))

    marks = [one for one in picture.iter(f"{SVG}line") if one.get("class") == "use"]
    assert len(marks) == 1
    assert marks[0].findtext(f"{SVG}title") == "9 uses, last 13:00:04"


@pytest.mark.parametrize("hours", [0.01, 1, 30, 24 * 9, 24 * 400, 24 * 3000])
def test_timeline_of_any_length_has_few_ticks(hours: float) -> None:
    events = entries(("ModelDiscovered", -60 * hours))

    picture = drawn(
        timeline(timeline_data(events), window_of(events, NOW.at, None), NOW)
    )

    texts = [text.text for text in picture.iter(f"{SVG}text")]
    assert 1 < len(texts) <= 7


def test_state_diagram_marks_the_state_and_counts_transitions() -> None:
    counts = {"not_present>loading": 2, "loading>available": 1}

    diagram = drawn(state_diagram(counts, ModelState.AVAILABLE))

    here = [
        g.get("class") for g in diagram.iter(f"{SVG}g") if "here" in g.get("class", "")
    ]
    assert here == ["box available here"]
    labels = [t.text for t in diagram.iter(f"{SVG}text") if t.get("class") == "count"]
    assert sorted(str(label) for label in labels) == ["1", "2"]
    gone = [p for p in diagram.iter(f"{SVG}path") if p.get("class") == "way gone"]
    assert len(gone) == 2


def test_state_diagram_has_every_transition_of_the_lifecycle() -> None:
    diagram = drawn(state_diagram({}, ModelState.NOT_PRESENT))

    ways = [p for p in diagram.iter(f"{SVG}path") if "way" in p.get("class", "")]
    assert len(ways) == len(edges())
    assert diagram.get("aria-label") == "State: not present. Transitions: none"


def test_state_diagram_stays_inside_its_frame() -> None:
    diagram = drawn(state_diagram({}, ModelState.LOADED))

    _, _, width, height = (float(n) for n in diagram.get("viewBox", "").split())
    for path in diagram.iter(f"{SVG}path"):
        if "way" in path.get("class", ""):
            xs = [float(x) for x in re.findall(r"([\d.-]+),", path.get("d", ""))]
            ys = [float(y) for y in re.findall(r",([\d.-]+)", path.get("d", ""))]
            assert all(0 <= x <= width for x in xs)
            assert all(0 <= y <= height for y in ys)
