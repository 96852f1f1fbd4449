"""What to delete to free disk space."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from herdbook.core import ModelState, ModelStatus
from herdbook.core.desired.free_space import FreeSpace, free_space
from herdbook.core.desired.plan import deletions
from herdbook.core.history.read_model import ReadModel
from herdbook.core.models.registry import ModelRegistry
from herdbook.core.reconcile.observed_uses import FOREVER
from herdbook.core.views import Views
from herdbook.events.facts import Runner
from herdbook.events.lifecycle import Lifecycle

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NONE = ReadModel(Views(), ModelRegistry(), "local").status("none:latest")


def model(
    name: str,
    size: int,
    *,
    used_days_ago: int | None = None,
    weights: str | None = None,
    state: ModelState = ModelState.AVAILABLE,
    pinned: bool = False,
) -> ModelStatus:
    used = None if used_days_ago is None else NOW - timedelta(days=used_days_ago)
    return msgspec.structs.replace(
        NONE,
        name=name,
        lifecycle=Lifecycle(state, present=True),
        size_bytes=size,
        weights=weights or name,
        last_used_at=used,
        settings={"pinned": True} if pinned else {},
    )


def kept_loaded(idle_hours: float, *, used_hours: float | None = None) -> ModelStatus:
    """Return a loaded model without expiry, idle for some hours."""
    expires_at = NOW - timedelta(hours=idle_hours) + FOREVER
    used = None if used_hours is None else NOW - timedelta(hours=used_hours)
    return msgspec.structs.replace(
        model("kept", 10, state=ModelState.LOADED),
        runner=Runner(name="kept", digest="d" * 64, expires_at=expires_at),
        last_used_at=used,
    )


def test_loaded_model_that_is_unused_for_a_day_can_be_deleted() -> None:
    old = model("old", 10, used_days_ago=9)

    assert names(free_space([kept_loaded(25)], 10, now=NOW)) == ["kept"]
    assert names(free_space([kept_loaded(25), old], 10, now=NOW)) == ["old"]
    (group,) = free_space([kept_loaded(25)], 10, now=NOW).chosen
    assert group.idle_since == NOW - timedelta(hours=25)


def test_loaded_model_that_may_be_in_use_stays() -> None:
    expires = msgspec.structs.replace(
        kept_loaded(25),
        runner=Runner(name="kept", digest="d" * 64, expires_at=NOW + timedelta(1)),
    )
    lost = msgspec.structs.replace(kept_loaded(25), stale_since=NOW)

    assert names(free_space([kept_loaded(23)], 10, now=NOW)) == []
    assert names(free_space([kept_loaded(25, used_hours=2)], 10, now=NOW)) == []
    assert names(free_space([kept_loaded(25)], 10)) == []
    assert names(free_space([expires], 10, now=NOW)) == []
    assert names(free_space([lost], 10, now=NOW)) == []


def names(proposal: FreeSpace) -> list[str]:
    return [step.name for group in proposal.chosen for step in group.steps]


def test_least_recently_used_goes_first() -> None:
    models = [
        model("new", 10, used_days_ago=1),
        model("old", 10, used_days_ago=9),
        model("never", 10),
    ]

    assert names(free_space(models, 10)) == ["never"]
    assert names(free_space(models, 15)) == ["never", "old"]
    assert names(free_space(models, 0)) == []


def available_since(name: str, size: int, **ago: float) -> ModelStatus:
    """Return a model that was never used."""
    return msgspec.structs.replace(model(name, size), since=NOW - timedelta(**ago))


def test_new_model_goes_after_those_that_were_not_used_since() -> None:
    pulled = available_since("pulled", 90, minutes=2)
    old = available_since("old", 10, days=2)
    used = model("used", 10, used_days_ago=1)

    assert names(free_space([pulled, used], 10, now=NOW)) == ["used"]
    assert names(free_space([pulled, old], 10, now=NOW)) == ["old"]
    assert names(free_space([pulled], 10, now=NOW)) == ["pulled"]


def test_largest_goes_first_of_those_that_one_refresh_found() -> None:
    found = [
        available_since("small", 10, seconds=3.0),
        available_since("large", 90, seconds=2.9),
    ]

    assert names(free_space(found, 10, now=NOW)) == ["large"]


def test_superfluous_groups_are_removed_from_the_proposal() -> None:
    models = [model("small", 1), model("large", 10, used_days_ago=3)]

    assert names(free_space(models, 10)) == ["large"]
    assert [g.steps[0].name for g in free_space(models, 10).alternatives] == ["small"]


@pytest.mark.parametrize(
    "kept",
    [
        model("kept", 10, state=ModelState.LOADED),
        model("kept", 10, pinned=True),
    ],
)
def test_loaded_and_pinned_models_stay(kept: ModelStatus) -> None:
    proposal = free_space([kept], 5)

    assert names(proposal) == []
    assert not proposal.is_enough


def test_desired_models_are_never_deleted() -> None:
    assert names(free_space([model("a", 10)], 5, keep={"a"})) == []


def test_shared_weights_count_once_and_only_if_all_names_are_deleted() -> None:
    one, two = model("one", 10, weights="w"), model("two", 10, weights="w")
    pinned = model("three", 10, weights="w", pinned=True)

    together = free_space([one, two], 5)

    assert names(together) == ["one", "two"]
    assert together.frees_bytes == 10
    assert [step.frees_bytes for step in together.chosen[0].steps] == [0, 10]
    assert names(free_space([one, two, pinned], 5)) == []


MODELS = st.lists(
    st.builds(
        model,
        st.uuids().map(str),
        st.integers(1, 100),
        used_days_ago=st.none() | st.integers(0, 9),
        weights=st.none() | st.sampled_from(["w1", "w2"]),
        state=st.sampled_from([ModelState.AVAILABLE, ModelState.LOADED]),
        pinned=st.booleans(),
    ),
    max_size=8,
)


@given(MODELS, st.integers(0, 400))
def test_proposal_frees_enough_or_everything_possible(
    models: list[ModelStatus], wanted: int
) -> None:
    proposal = free_space(models, wanted)

    assert proposal.is_enough or not proposal.alternatives
    stay = {m.name for m in models if m.state is ModelState.LOADED or m.settings}
    assert not stay & set(names(proposal))
    for group in proposal.chosen:  # none of them could be left out
        assert proposal.frees_bytes - group.frees_bytes < wanted


def test_last_deletion_frees_the_shared_weights() -> None:
    models = [
        model("a", 10, weights="w"),
        model("b", 12, weights="w"),
        model("c", 5),
    ]

    one = deletions(models, ["a", "c", "absent"])
    both = deletions(models, ["a", "b"])
    largest_first = deletions(models, ["b", "a"])

    assert [(s.name, s.frees_bytes, s.shared_with) for s in one] == [
        ("a", 0, ("b",)),
        ("c", 5, ()),
    ]
    assert [s.frees_bytes for s in both] == [0, 12]
    assert [s.frees_bytes for s in largest_first] == [0, 12]
