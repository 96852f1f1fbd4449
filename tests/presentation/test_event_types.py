from __future__ import annotations

import pytest

from herdbook.presentation.event_types import event_type_remedy, parse_event_type


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ModelDeleted", "ModelDeleted"),
        ("modeldeleted", "ModelDeleted"),
        ("deleted", "ModelDeleted"),
        ("Discovered", "ModelDiscovered"),
        ("nodelost", "NodeLost"),
        ("node_lost", "NodeLost"),
        ("model-deleted", "ModelDeleted"),
        ("pulled", "PullCompleted"),
        ("unload", "ModelUnloaded"),
        ("settings", "ConfigurationChanged"),
    ],
)
def test_event_type_is_parsed_in_any_case_and_without_prefix(
    text: str, expected: str
) -> None:
    assert parse_event_type(text) == (expected,)


@pytest.mark.parametrize(
    ("text", "nearest"), [("delted", "'Deleted'"), ("ModelDelted", "'ModelDeleted'")]
)
def test_unknown_event_type_suggests_the_nearest(text: str, nearest: str) -> None:
    assert parse_event_type(text) == ()
    assert event_type_remedy(text) == f"Did you mean {nearest}?"


def test_unknown_event_type_without_a_similar_one_lists_all() -> None:
    assert event_type_remedy("xyzzy").startswith("Types: AnchorReceived, ")


def test_word_for_several_types_names_all_of_them() -> None:
    assert parse_event_type("failed") == (
        "LoadFailed",
        "PullFailed",
        "ReloadFailed",
        "UpdateFailed",
        "UseFailed",
    )
    assert parse_event_type("load")[0] == "ModelLoaded"
