"""Facts, remedies and costs, in words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from herdbook.core import (
    Activity,
    CostSource,
    Figure,
    ModelState,
    ModelStatus,
    PullCost,
    Runner,
)
from herdbook.events.lifecycle import Lifecycle
from herdbook.presentation import facts
from herdbook.presentation.costs import fetch_text, free_text
from herdbook.presentation.remedies import remedy_of
from herdbook.presentation.times import Now
from herdbook.projections.status import Failure

NOW = Now(datetime(2026, 11, 24, 14, tzinfo=UTC), UTC)
HERE = Lifecycle(ModelState.AVAILABLE, present=True)


def runner(**given: object) -> Runner:
    return Runner(name="a:latest", digest="d", size_bytes=2_000_000_000, **given)  # type: ignore[arg-type]  # its fields by name


def test_every_state_has_a_sign_of_its_own() -> None:
    assert len(set(facts.SYMBOLS.values())) == len(ModelState)


@pytest.mark.parametrize(
    ("seconds", "result"),
    [
        (250, "unloads in 4 min"),
        (0.2, "unloads in 1 s"),
        (-1, "in use, or about to unload"),
        (86_400 * 365 * 300, "no expiry"),
    ],
)
def test_expiry_is_counted_down(seconds: float, result: str) -> None:
    at = NOW.at + timedelta(seconds=seconds)

    assert facts.expiry_text(runner(expires_at=at), NOW) == result


def test_unknown_expiry_is_not_shown() -> None:
    assert facts.expiry_text(runner(), NOW) == ""


@pytest.mark.parametrize(
    ("vram", "result"),
    [
        (0, "2.0 GB, CPU"),
        (2_000_000_000, "2.0 GB, GPU"),
        (500_000_000, "2.0 GB, 500 MB of 2.0 GB (25%) on the GPU"),
    ],
)
def test_memory_says_where_it_is(vram: int, result: str) -> None:
    assert facts.memory_text(runner(size_vram_bytes=vram), "a:latest") == result


def test_failure_is_not_shown_during_its_retry() -> None:
    failed = Failure("PullFailed", "stalled", "a:1 was not pulled", NOW.at)
    absent, pulling = (
        Lifecycle(ModelState.ERROR, present=False),
        Lifecycle(ModelState.LOADING, activity=Activity.PULL),
    )

    def text(lifecycle: Lifecycle) -> str:
        status = ModelStatus(
            node="local", name="a:1", lifecycle=lifecycle, last_failure=failed
        )
        return facts.failure_text(status, NOW)

    assert text(absent).startswith("pull failed just now")
    assert text(pulling) == ""


def test_weights_are_shared_with_who_is_there() -> None:
    one, two, gone = (
        ModelStatus(node="local", name=name, weights="w" * 64, lifecycle=lifecycle)
        for name, lifecycle in (
            ("a", HERE),
            ("b", HERE),
            ("c", Lifecycle(ModelState.NOT_PRESENT)),
        )
    )

    assert facts.sharing(one, [one, two, gone]) == ["b"]


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [
        ("disk_full", "Free space on the server, then pull it again"),
        ("out_of_memory", "Unload other models, or set a smaller num_ctx"),
        ("not_in_registry", "Check the name and the tag at https://ollama.com/search"),
        ("stalled", "Pull it again to resume"),
        ("a_word_of_tomorrow", ""),
    ],
)
def test_remedy_is_that_of_the_error(kind: str, remedy: str) -> None:
    assert remedy_of(kind, "a:1") == remedy


def test_remedy_names_the_registry_of_the_model() -> None:
    remedy = remedy_of("not_in_registry", "registry.lan:5000/ann/a:1")

    assert remedy == "Check the name and the tag at the registry registry.lan:5000"


def test_costs_say_what_is_not_known() -> None:
    note = "not known until the pull starts"
    unknown = Figure(size_bytes=None, source=CostSource.UNKNOWN, note=note)
    cost = PullCost(name="a", update=False, fetch=unknown, free=unknown)

    assert fetch_text(cost) == "download size not known until the pull starts"
    assert free_text(unknown) == ""
