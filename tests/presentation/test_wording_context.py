"""The context of a model in a list: in effect or configured, and trained."""

from __future__ import annotations

import pytest

from herdbook.core import ModelRegistry
from herdbook.events.facts import FactSource
from herdbook.events.lifecycle import INITIAL
from herdbook.presentation.wording import context_text
from herdbook.projections.status import ModelStatus


@pytest.mark.parametrize(
    ("trained", "default", "expected"),
    [
        (131_072, None, "128k"),
        (131_072, 4096, "4k of 128k"),
        (131_072, 131_072, "128k"),
        (2048, 8192, "2k"),  # Ollama reduces it
    ],
)
def test_context_is_at_most_the_trained_one(
    trained: int, default: int | None, expected: str
) -> None:
    status = ModelStatus(
        node="local",
        name="a:1b",
        lifecycle=INITIAL,
        context_trained=trained,
        context_source=FactSource.SHOW,
        context_default=default,
    )

    assert context_text(status, ModelRegistry()) == expected
