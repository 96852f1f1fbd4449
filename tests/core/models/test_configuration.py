from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herdbook.core.errors import InvalidConfigurationError
from herdbook.core.models.configuration import (
    LONGEST_KEEP_ALIVE_S,
    SETTINGS,
    ModelOptions,
    change,
    check,
    keep_alive_seconds,
    options_for,
    parse,
)
from herdbook.events.facts import Setting


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (300, 300.0),
        ("10m", 600.0),
        ("1h30m", 5400.0),
        (-1, -1.0),
        ("-1m", -60.0),
        (3.5, 3.5),
        ("90s", 90.0),
        ("+1.5h", 5400.0),
        (".5s", 0.5),
        ("1.s", 1.0),
        ("100ms", 0.1),
        ("87600h", 315_360_000.0),
        (0, 0.0),
        ("0", 0.0),
        ("-0", 0.0),
        ("0s", 0.0),
    ],
)
def test_keep_alive_accepts_what_the_server_accepts(
    value: Setting, seconds: float
) -> None:
    check("keep_alive", value)
    assert keep_alive_seconds(value) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value",
    ["-1", "5", "abc", "", "m", "5 m", "1d", "--0", "1e3s", "5M", "1,5s", "٣s"],
)
def test_keep_alive_refuses_texts_without_a_unit_and_invalid_texts(value: str) -> None:
    with pytest.raises(InvalidConfigurationError, match="such as 5m or 1h30m"):
        check("keep_alive", value)


@pytest.mark.parametrize(
    "value",
    [True, None, [1], {"a": "b"}, 1e30, math.inf, math.nan, 10**400, "9999999999s"],
)
def test_keep_alive_refuses_other_types_and_overflows(value: Setting) -> None:
    assert keep_alive_seconds(value) is None


UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
PARTS = st.tuples(st.integers(0, 10_000), st.sampled_from(sorted(UNITS)))


@given(st.lists(PARTS, min_size=1, max_size=4), st.sampled_from(["", "-", "+"]))
def test_keep_alive_is_the_sum_of_its_parts(
    parts: list[tuple[int, str]], sign: str
) -> None:
    text = sign + "".join(f"{number}{unit}" for number, unit in parts)
    seconds = math.fsum(number * UNITS[unit] for number, unit in parts)
    expected = -seconds if sign == "-" else seconds
    assert keep_alive_seconds(text) == pytest.approx(expected)


@given(st.floats() | st.integers())
def test_keep_alive_accepts_every_number_in_range(value: float) -> None:
    fits = abs(value) < LONGEST_KEEP_ALIVE_S
    assert (keep_alive_seconds(value) == value) is fits


@given(st.text(max_size=12))
def test_keep_alive_refuses_a_text_of_digits(text: str) -> None:
    taken = keep_alive_seconds(text)
    assert taken is None or text in {"0", "+0", "-0"} or text[-1] in "smh"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_ctx", 4),
        ("temperature", 0),
        ("temperature", 2.0),
        ("pinned", False),
        ("notes", "long files"),
        ("options.stop", ["</s>"]),
        ("options.use_mmap", True),
        ("options.seed", -7),
        ("options.top_p", 0.9),
        ("capability.tools", False),
    ],
)
def test_valid_setting_is_accepted(name: str, value: Setting) -> None:
    check(name, value)
    assert name in SETTINGS


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_ctx", "many"),
        ("num_ctx", 0),
        ("num_ctx", True),
        ("num_ctx", 4096.0),
        ("num_ctx", 2**31),
        ("temperature", 2.1),
        ("temperature", math.nan),
        ("temperature", False),
        ("pinned", 1),
        ("pinned", None),
        ("notes", "x" * 2001),
        ("options.stop", "x"),
        ("options.stop", [1]),
        ("options.top_k", -1),
        ("capability.tools", "yes"),
    ],
)
def test_invalid_value_is_refused_with_the_accepted_range(
    name: str, value: Setting
) -> None:
    with pytest.raises(InvalidConfigurationError) as refused:
        check(name, value)
    assert refused.value.subject == name
    assert f"must be {SETTINGS[name]}, not " in refused.value.state


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("num_ctxx", "Did you mean 'num_ctx'?"),
        ("top_k", "Did you mean 'options.top_k'?"),
        ("options.num_ctx", "Did you mean 'num_ctx'?"),
        ("options.horns", "The settings are num_ctx"),
        ("capability.flight", "The settings are num_ctx"),
    ],
)
def test_unknown_setting_suggests_the_right_name(name: str, remedy: str) -> None:
    with pytest.raises(InvalidConfigurationError) as refused:
        check(name, 1)
    assert refused.value.remedy.startswith(remedy)


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("num_ctx=16384", "num_ctx", 16384),
        ("num_ctx=4k", "num_ctx", 4096),
        ("num_ctx=8K", "num_ctx", 8192),
        ("num_ctx=128k", "num_ctx", 131_072),
        ("num_ctx=1m", "num_ctx", 1_048_576),
        ("num_ctx=1.5k", "num_ctx", 1536),
        ("num_ctx=32 ki", "num_ctx", 32_768),
        ("num_ctx=131,072", "num_ctx", 131_072),
        ("keep_alive=5 min", "keep_alive", "5m"),
        ("keep_alive=2 days", "keep_alive", "48h"),
        ("keep_alive=1h 30m", "keep_alive", "1h30m"),
        ("keep_alive=forever", "keep_alive", -1),
        ("options.num_predict=2k", "options.num_predict", 2048),
        (" temperature = 0.2 ", "temperature", 0.2),
        ("temperature=1", "temperature", 1),
        ("keep_alive=5m", "keep_alive", "5m"),
        ("keep_alive=-1", "keep_alive", -1),
        ("keep_alive=0", "keep_alive", 0),
        ("pinned=Yes", "pinned", True),
        ("capability.tools=false", "capability.tools", False),
        ("notes=a=b", "notes", "a=b"),
        ("options.stop=</s>", "options.stop", ["</s>"]),
        ('options.stop=["a", "b"]', "options.stop", ["a", "b"]),
        ("options.num_gpu=-1", "options.num_gpu", -1),
    ],
)
def test_command_line_text_is_parsed(text: str, name: str, value: Setting) -> None:
    read = parse(text)
    assert read == (name, value)
    assert type(read[1]) is type(value)


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("num_ctx", "has no value"),
        ("num_ctx=16q", ", not '16q'"),
        ("temperature=warm", ", not 'warm'"),
        ("pinned=1", ", not '1'"),
        ("options.stop=[1]", ", not '[1]'"),
        ("horns=2", "does not exist"),
    ],
)
def test_meaningless_text_is_refused(text: str, state: str) -> None:
    with pytest.raises(InvalidConfigurationError) as refused:
        parse(text)
    assert state in refused.value.state


def test_setting_without_a_value_shows_how_to_write_it() -> None:
    with pytest.raises(InvalidConfigurationError, match="Write it as num_ctx=value"):
        parse("num_ctx")


def test_change_has_new_removed_and_previous_values() -> None:
    current: dict[str, Setting] = {"num_ctx": 4096, "pinned": True, "notes": "x"}
    fact = change(current, {"num_ctx": 8192, "temperature": 0}, ["pinned"], "more")
    assert fact is not None
    assert fact.set == {"num_ctx": 8192, "temperature": 0}
    assert fact.unset == ("pinned",)
    assert fact.was == {"num_ctx": 4096, "pinned": True}
    assert fact.note == "more"


def test_change_without_effect_is_empty() -> None:
    assert change({"num_ctx": 4096}, {"num_ctx": 4096}, ["temperature"]) is None
    assert change({}, {}) is None


def test_change_distinguishes_values_of_different_types() -> None:
    fact = change({"keep_alive": 1}, {"keep_alive": 1.0})
    assert fact is not None
    assert fact.was == {"keep_alive": 1}


def test_invalid_change_is_refused_as_a_whole() -> None:
    with pytest.raises(InvalidConfigurationError, match="num_ctx"):
        change({}, {"temperature": 1, "num_ctx": "many"})
    with pytest.raises(InvalidConfigurationError, match="does not exist"):
        change({}, {}, ["horns"])
    with pytest.raises(InvalidConfigurationError, match="set and unset"):
        change({}, {"num_ctx": 8}, ["num_ctx"])


def test_change_can_unset_a_setting_of_an_older_version() -> None:
    fact = change({"horns": 2}, {}, ["horns"])
    assert fact is not None
    assert fact.unset == ("horns",)


VALUES = st.fixed_dictionaries(
    {},
    optional={
        "num_ctx": st.integers(4, 10**6),
        "temperature": st.floats(0, 2),
        "keep_alive": st.sampled_from([0, -1, "5m"]),
        "pinned": st.booleans(),
    },
)


@given(VALUES, VALUES)
def test_change_leads_from_the_current_to_the_wanted_settings(
    current: dict[str, Setting], wanted: dict[str, Setting]
) -> None:
    unset = current.keys() - wanted.keys()
    fact = change(current, wanted, unset)
    after = dict(current)
    if fact is not None:
        after |= fact.set
        after = {name: v for name, v in after.items() if name not in fact.unset}
    assert after == wanted
    assert (fact is None) == (current == wanted)


def test_options_are_configured_ones_then_recommended_ones() -> None:
    settings: dict[str, Setting] = {
        "num_ctx": 8192,
        "keep_alive": "5m",
        "options.top_k": 3,
        "pinned": True,
        "capability.tools": True,
    }
    assert options_for(settings, temperature=0.2) == ModelOptions(
        options={"num_ctx": 8192, "temperature": 0.2, "top_k": 3}, keep_alive="5m"
    )


def test_configured_options_override_recommended_ones() -> None:
    given_options = options_for({"temperature": 0.9}, temperature=0.2)
    assert given_options.options == {"temperature": 0.9}
    assert options_for({}) == ModelOptions()
