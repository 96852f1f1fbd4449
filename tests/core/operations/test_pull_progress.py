"""The progress of a pull from its lines, also if the server's counter decreases."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from herdbook.core.ollama.wire import PullLine
from herdbook.core.operations.pull_progress import PullProgress, PullTracker

ASKING = PullLine(status="pulling manifest")
VERIFYING = PullLine(status="verifying sha256 digest")
SUCCESS = PullLine(status="success")


def layer(digest: str, completed: int, total: int | None = 1000) -> PullLine:
    return PullLine(
        status=f"pulling {digest}", digest=digest, total=total, completed=completed
    )


def tracked(*lines: PullLine, tracker: PullTracker | None = None) -> PullTracker:
    """Return a tracker that took in these lines, one a second."""
    tracker = tracker or PullTracker()
    for second, line in enumerate(lines):
        tracker.apply(line, float(second))
    return tracker


def test_nothing_is_known_before_the_first_layer() -> None:
    progress = tracked(ASKING).progress(0)

    assert (progress.completed_bytes, progress.total_bytes) == (0, None)
    assert (progress.percent, progress.rate_bytes_s, progress.eta_s) == (
        None,
        None,
        None,
    )
    assert progress.status == "pulling manifest"


def test_layers_add_up_as_they_are_named() -> None:
    progress = tracked(layer("a", 0), layer("a", 600), layer("b", 0, 500)).progress(2)

    assert progress.completed_bytes == 1000  # the second begins: the first is whole
    assert progress.total_bytes == 1500
    assert progress.fetched_bytes == 1000
    assert progress.digest == "b"
    assert progress.percent == 66


def test_layer_without_a_last_line_is_complete_once_verified() -> None:
    tracker = tracked(layer("a", 0), layer("a", 900), VERIFYING)

    progress = tracker.progress(2)

    assert (progress.completed_bytes, progress.percent) == (1000, 100)
    assert (progress.rate_bytes_s, progress.eta_s, progress.digest) == (
        None,
        None,
        None,
    )


def test_decreasing_counter_is_counted_but_not_reported() -> None:
    tracker = tracked(layer("a", 0), layer("a", 800), layer("a", 0))

    assert tracker.progress(2).completed_bytes == 800
    tracked(layer("a", 300), layer("a", 900), tracker=tracker)
    progress = tracker.progress(4)
    assert progress.completed_bytes == 900
    assert progress.fetched_bytes == 1700
    assert progress.refetched_bytes == 800


def test_bytes_already_present_count_neither_as_fetched_nor_in_the_rate() -> None:
    progress = tracked(ASKING, layer("a", 700)).progress(1)

    assert progress.completed_bytes == 700
    assert progress.fetched_bytes == 0
    assert not progress.rate_bytes_s


def test_the_rate_is_that_of_the_last_seconds() -> None:
    lines = [layer("a", 100 * second, 100_000) for second in range(60)]
    tracker = tracked(*lines)

    progress = tracker.progress(59)

    assert progress.rate_bytes_s == pytest.approx(100)
    assert progress.eta_s == pytest.approx((100_000 - 5900) / 100)


def test_the_rate_falls_while_no_line_comes() -> None:
    tracker = tracked(*(layer("a", 100 * second, 10**6) for second in range(30)))

    rates = [tracker.progress(29.0 + silent).rate_bytes_s or 0 for silent in range(30)]

    assert all(before > after for before, after in pairwise(rates))
    assert rates[-1] < 1
    assert tracker.progress(59).eta_s is None


def test_lines_at_the_same_time_count_fully() -> None:
    tracker = PullTracker()
    for completed, now in [(0, 0.0), (100, 1.0), (200, 1.0), (300, 2.0)]:
        tracker.apply(layer("a", completed), now)

    assert tracker.progress(2).rate_bytes_s == pytest.approx(150, rel=0.1)


def test_known_total_applies_from_the_start() -> None:
    tracker = PullTracker(total_bytes=2000)

    assert tracked(ASKING, tracker=tracker).progress(0).total_bytes == 2000
    tracked(layer("a", 1000), VERIFYING, tracker=tracker)
    progress = tracker.progress(2)
    assert (progress.completed_bytes, progress.total_bytes) == (2000, 2000)


def test_pull_of_a_present_model_is_complete_at_once() -> None:
    progress = tracked(ASKING, layer("a", 1000), VERIFYING, SUCCESS).progress(3)

    assert (progress.completed_bytes, progress.fetched_bytes) == (1000, 0)
    assert progress.percent == 100


def test_repeated_last_line_is_accepted() -> None:
    again = (layer("config", 10, 10), VERIFYING, SUCCESS)

    progress = tracked(layer("a", 0), layer("a", 1000), *again, *again).progress(9)

    assert (progress.completed_bytes, progress.total_bytes) == (1010, 1010)
    assert progress.fetched_bytes == 1000


@pytest.mark.parametrize("total", [None, 0])
def test_an_empty_layer_counts_nothing(total: int | None) -> None:
    tracker = tracked(layer("a", 0, total))

    assert tracker.progress(0).total_bytes is None


def test_retry_continues_where_the_server_does() -> None:
    tracker = tracked(layer("a", 0), layer("a", 600))

    tracker.restart()
    tracked(ASKING, layer("a", 550), layer("a", 1000), tracker=tracker)

    progress = tracker.progress(2)
    assert progress.completed_bytes == 1000
    assert progress.fetched_bytes == 600 + 450
    assert progress.refetched_bytes == 50


def test_retry_of_a_complete_download_fetches_nothing() -> None:
    tracker = tracked(layer("a", 0), layer("a", 600))

    tracker.restart()
    tracked(ASKING, VERIFYING, tracker=tracker)

    progress = tracker.progress(1)
    assert (progress.completed_bytes, progress.fetched_bytes) == (1000, 600)


def test_pull_without_bytes_for_too_long_is_stalled() -> None:
    tracker = tracked(layer("a", 100), layer("a", 200))

    tracker.apply(layer("a", 200), 20.9)  # a line, but no byte

    assert not tracker.stalled(20.9)
    assert tracker.stalled(21)
    assert tracker.stalled(6, after_s=5)


def test_a_byte_ends_the_stall() -> None:
    tracker = tracked(layer("a", 100), layer("a", 200))

    tracker.apply(layer("a", 201), 30)

    assert not tracker.stalled(49)


def test_a_counter_that_only_decreases_is_a_stall() -> None:
    tracker = tracked(layer("a", 500))

    tracker.apply(layer("a", 100), 10)

    assert tracker.stalled(20)


@pytest.mark.parametrize("line", [ASKING, VERIFYING, SUCCESS])
def test_waiting_without_expected_bytes_is_not_a_stall(line: PullLine) -> None:
    tracker = PullTracker()

    assert not tracker.stalled(1000)
    tracker.apply(line, 0)
    assert not tracker.stalled(1000)


def test_verifying_after_the_bytes_is_not_a_stall() -> None:
    assert not tracked(layer("a", 0), VERIFYING).stalled(1000)


def test_silence_after_the_last_byte_of_a_layer_is_not_a_stall() -> None:
    tracker = tracked(layer("a", 1000))
    whole = tracker.expects_data, tracker.stalled(10_000.0)

    tracker.apply(layer("b", 999), 10_000.0)

    assert whole == (False, False)
    assert (tracker.expects_data, tracker.stalled(10_020.0)) == (True, True)


def test_retry_is_not_stalled_before_it_starts() -> None:
    tracker = tracked(layer("a", 0))

    tracker.restart()

    assert not tracker.stalled(1000)


def test_progress_recorded_by_another_instance_is_reported() -> None:
    assert PullProgress.recorded(5, 10).percent == 50
    assert PullProgress.recorded(5, None).percent is None


lines = st.one_of(
    st.sampled_from([ASKING, VERIFYING]),
    st.builds(
        layer,
        st.sampled_from("abc"),
        st.integers(-10, 2000),
        st.one_of(st.none(), st.integers(-10, 1500)),
    ),
)
steps = st.lists(
    st.tuples(st.one_of(st.none(), lines), st.floats(0, 40, allow_nan=False)),
    max_size=40,
)


@given(steps, st.one_of(st.none(), st.integers(0, 3000)))
def test_progress_never_goes_back_and_ends_at_the_total(
    steps: list[tuple[PullLine | None, float]], known: int | None
) -> None:
    tracker, now, result = PullTracker(total_bytes=known), 0.0, []

    for line, wait in [*steps, (SUCCESS, 0.0)]:
        now += wait
        if line is None:
            tracker.restart()
        else:
            tracker.apply(line, now)
        result.append(tracker.progress(now))

    for before, after in pairwise(result):
        assert before.completed_bytes <= after.completed_bytes
        assert (before.total_bytes or 0) <= (after.total_bytes or 0)
        assert (before.fetched_bytes or 0) <= (after.fetched_bytes or 0)
    for each in result:
        assert each.completed_bytes <= (each.total_bytes or 0)
        assert 0 <= each.refetched_bytes <= (each.fetched_bytes or 0)
        assert each.rate_bytes_s is None or each.rate_bytes_s >= 0
        assert each.eta_s is None or each.eta_s >= 0
    assert result[-1].completed_bytes == (result[-1].total_bytes or 0)


@pytest.mark.parametrize("odd", [None, -1, 10**400, 1.5, "12", True, [1], {}])
def test_impossible_number_leaves_the_layer_unchanged(odd: object) -> None:
    tracker = PullTracker()
    tracker.apply(PullLine(status="pulling", digest="a", total=100, completed=40), 0)
    tracker.apply(PullLine(status="pulling", digest="a", total=odd, completed=odd), 1)

    result = tracker.progress(1)
    assert (result.completed_bytes, result.total_bytes) == (40, 100)


@pytest.mark.parametrize(
    "line",
    [
        b'{"status":7,"digest":"a","total":100,"completed":"40"}',
        b'{"status":"pulling","digest":5,"total":1e2,"completed":40.0}',
        b'{"status":null,"digest":null,"total":false,"completed":{"a":[1]}}',
    ],
)
def test_a_line_with_fields_of_other_types_is_read(line: bytes) -> None:
    found = msgspec.json.decode(line, type=PullLine)

    assert found.total in {100, None}
    assert found.completed in {40, None}
    assert isinstance(found.status, str)


@given(
    steps=st.lists(
        st.tuples(st.sampled_from("abc"), st.none() | st.integers(0, 99)) | st.none(),
        max_size=40,
    )
)
def test_running_sums_equal_those_of_the_layers(
    steps: list[tuple[str, int | None] | None],
) -> None:
    tracker = PullTracker()
    for at, step in enumerate(steps):
        if step is None and at % 3 == 0:
            tracker.restart()
        elif step is None:
            tracker.apply(PullLine(status="verifying"), at)
        else:
            digest, completed = step
            line = PullLine(
                status="x", digest=digest, total=at + 50, completed=completed
            )
            tracker.apply(line, at)
        layers = tracker._layers.values()
        assert tracker._named == sum(layer.total for layer in layers)
        assert tracker._most == sum(layer.most for layer in layers)
        assert tracker._there == sum(layer.completed or 0 for layer in layers)
