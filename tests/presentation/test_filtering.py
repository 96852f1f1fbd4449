"""Models are found by the states that are shown, which include ``pulling``."""

from __future__ import annotations

import pytest

from herdbook.core import ModelRegistry, ModelState, ReadModel
from herdbook.core.views import Views
from herdbook.events.lifecycle import Activity, Lifecycle
from herdbook.presentation.filtering import ModelFilter
from herdbook.projections.status import ModelStatus

PULLED = Lifecycle(state=ModelState.LOADING, activity=Activity.PULL)
LOADING = Lifecycle(state=ModelState.LOADING, activity=Activity.LOAD)
ERROR = Lifecycle(state=ModelState.ERROR)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (ModelFilter(), {"pulled", "loading", "error"}),
        (ModelFilter(pulling=True), {"pulled"}),
        (ModelFilter(states=frozenset({ModelState.LOADING})), {"pulled", "loading"}),
        (
            ModelFilter(states=frozenset({ModelState.ERROR}), pulling=True),
            {"pulled", "error"},
        ),
    ],
)
def test_models_are_found_by_their_state(
    found: ModelFilter, expected: set[str]
) -> None:
    models = ReadModel(Views(), ModelRegistry(), "local")
    lifecycles = {"pulled": PULLED, "loading": LOADING, "error": ERROR}
    statuses = [
        ModelStatus(node="local", name=name, lifecycle=lifecycle)
        for name, lifecycle in lifecycles.items()
    ]

    names = {one.name for one in statuses if found.matches(one, models)}

    assert names == expected
