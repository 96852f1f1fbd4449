"""A model has the same colour in all charts."""

from __future__ import annotations

from herdbook.core import ModelStatus
from herdbook.events.lifecycle import Lifecycle, ModelState
from herdbook.service.dashboard.charts.colours import COLOURS, OTHERS_CLASS, Colours

PRESENT = Lifecycle(state=ModelState.AVAILABLE, present=True)


def model(name: str, size: int, weights: str = "") -> ModelStatus:
    return ModelStatus(
        node="local",
        name=name,
        lifecycle=PRESENT,
        size_bytes=size,
        weights=weights or name,
    )


MODELS = [model(f"m{number}:1b", 100 - number) for number in range(COLOURS)]
NAMES = [each.name for each in MODELS]


def test_each_model_has_a_colour_of_its_own_whatever_the_chart_shows() -> None:
    colours = Colours(MODELS)
    by_name = dict(zip(NAMES, colours.classes(NAMES), strict=True))

    assert len(set(by_name.values())) == COLOURS
    assert OTHERS_CLASS not in by_name.values()
    for chosen in (NAMES[::-1], NAMES[2:4], NAMES[5:]):
        assert colours.classes(chosen) == [by_name[name] for name in chosen]


def test_names_of_the_same_weights_have_the_same_colour() -> None:
    colours = Colours([*MODELS, model("copy:1b", 1, weights="m0:1b")])

    assert colours.classes(["copy:1b"]) == colours.classes(["m0:1b"])


def test_new_small_model_does_not_take_the_colour_of_a_larger_one() -> None:
    before = Colours(MODELS[:-1])

    after = Colours([*MODELS[:-1], model("new:1b", 1)])

    assert after.classes(NAMES[:-1]) == before.classes(NAMES[:-1])


def test_models_beyond_the_colours_differ_within_a_chart_or_are_grey() -> None:
    many = [model(f"m{number}:1b", 100 - number) for number in range(20)]
    chosen = [each.name for each in many[: COLOURS + 1]]

    classes = Colours(many).classes(chosen)

    assert len(set(classes)) == COLOURS + 1
    assert classes[-1] == OTHERS_CLASS
