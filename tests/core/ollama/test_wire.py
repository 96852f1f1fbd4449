"""Answers of the API: old versions are accepted, malformed answers are not."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.recordings.wire import recorded_answers

from herdbook.core.ollama.show_parameters import parse_parameters
from herdbook.core.ollama.wire import (
    Answer,
    Details,
    RunnerEntry,
    ShowAnswer,
    TagEntry,
    parse_parameter_count,
)
from herdbook.events.facts import Runner

Kind = TypeVar("Kind", bound=Answer)

GOOD = {"name": "x:1", "digest": "d" * 64}


def read(kind: type[Kind], **keys: object) -> Kind:
    return msgspec.json.decode(msgspec.json.encode(keys), type=kind)


def a_show(**keys: object) -> ShowAnswer:
    return read(ShowAnswer, details={}, **keys)


def shown(file: str, name: str) -> ShowAnswer:
    """Return what a server showed of a model, from the recording ``file``."""
    for found, answer, asked in recorded_answers("POST", "/api/show"):
        if (found, asked.json) == (file, {"model": name}):
            return msgspec.json.decode(answer.body, type=ShowAnswer)
    raise LookupError(name)


@pytest.mark.parametrize("file", ["discovery.json", "older/discovery.json"])
def test_model_is_shown_with_every_requested_field(file: str) -> None:
    show = shown(file, "llama3.2:1b")

    assert show.weights == (
        "ba39aa794179912b50888ffec291cf28fa9e59016fe20d60bb331cc71a494d14"
    )
    assert show.context_trained == 8192
    assert show.parameter_count == 124_864
    assert (show.num_ctx, show.temperature) == (2048, 0.7)
    assert show.parameters == {
        "num_ctx": 2048,
        "stop": ["<|user|>", "<|assistant|>"],
        "temperature": 0.7,
    }
    assert show.capabilities == ["completion", "tools"]


def test_model_without_parameters_has_no_options() -> None:
    show = shown("discovery.json", "plain:latest")

    assert (show.parameters, show.num_ctx, show.temperature) == ({}, None, None)


def test_older_tags_lack_what_newer_ones_have() -> None:
    (_, answer, _), *_ = (
        found
        for found in recorded_answers("GET", "/api/tags")
        if found[0] == "older/discovery.json"
    )
    models = msgspec.json.decode(answer.body, type=dict[str, list[msgspec.Raw]])
    entries = [msgspec.json.decode(one, type=TagEntry) for one in models["models"]]

    assert [entry.capabilities for entry in entries] == [None] * len(entries)
    assert {entry.details.context_length for entry in entries} == {None}


@pytest.mark.parametrize(
    ("written", "utc"),
    [
        ("2026-08-20T08:06:48.639712648-07:00", "2026-08-20T15:06:48.639713+00:00"),
        ("2026-08-20T08:06:48Z", "2026-08-20T08:06:48+00:00"),
        ("2318-11-02T00:25:31.2+02:00", "2318-11-01T22:25:31.200000+00:00"),
        ("0001-01-01T00:00:00+01:00", "0001-01-01T00:00:00+00:00"),
    ],
)
def test_times_become_utc(written: str, utc: str) -> None:
    found = read(RunnerEntry, **GOOD, expires_at=written).expires_at

    assert found is not None
    assert found.isoformat() == utc
    assert found.tzinfo is UTC


@pytest.mark.parametrize(
    "written", [None, "", "soon", 5, "2026-08-20T08", [], "9" * 99]
)
def test_an_invalid_time_is_not_known(written: object) -> None:
    assert read(RunnerEntry, **GOOD, expires_at=written).expires_at is None


@pytest.mark.parametrize(
    "odd",
    [
        *({"name": name} for name in (None, 7, "", " ", "x", "x:1\n", "a b:1")),
        *({"name": name} for name in ("x:\u202e1", "x" * 5000, "../x:1", "x:1:local")),
        {"name": "registry.ollama.ai/library/x:1"},
        *({"digest": digest} for digest in (None, "", 7, "d", "A" * 64)),
        *({"digest": digest} for digest in ("a" * 65, "a" * 64 + "\n", "sha256:a")),
        *({"size": size} for size in (None, "", -1, 1.5, 10**16, 10**400, True)),
    ],
    ids=repr,
)
@pytest.mark.parametrize("kind", [TagEntry, RunnerEntry])
def test_an_entry_out_of_bounds_cannot_be_read(
    kind: type[Answer], odd: dict[str, object]
) -> None:
    text = json.dumps({**GOOD, **odd})
    with pytest.raises(msgspec.MsgspecError):
        msgspec.json.decode(text, type=kind)


@pytest.mark.parametrize("body", [b"{}", b"[]", b"null"])
def test_answer_without_a_model_is_not_guessed(body: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(body, type=ShowAnswer)


@pytest.mark.parametrize(
    "details",
    [
        *(None, [], "x", 7, {"family": None}, {"family": 7}, {"family": "x" * 65}),
        *({"family": "\u202ex"}, {"family": "a\nb"}, {"parameter_size": "9" * 10**6}),
        *({"context_length": -1}, {"context_length": 10**30}, {"context_length": "8"}),
    ],
    ids=lambda details: repr(details)[:40],
)
def test_details_out_of_bounds_are_not_known(details: object) -> None:
    assert read(TagEntry, **GOOD, details=details).details == Details()


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (None, None),
        ("completion", None),
        ([], []),
        (
            ["tools", None, 7, "tools", "", "a\nb", "x" * 65, "vision"],
            ["tools", "vision"],
        ),
        ([f"word{number}" for number in range(10_000)], None),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_invalid_words_are_left_out_of_capabilities(
    written: object, words: list[str] | None
) -> None:
    assert read(TagEntry, **GOOD, capabilities=written).capabilities == words


def test_unknown_keys_are_ignored() -> None:
    entry = read(TagEntry, **GOOD, details={"families": None}, modified_at="", new=[1])

    assert entry.name == "x:1"


def test_runner_is_recorded_as_listed() -> None:
    entry = read(
        RunnerEntry,
        **GOOD,
        size=10,
        size_vram=4,
        expires_at="2026-01-01T01:00:00+01:00",
    )

    assert entry.runner == Runner(
        name="x:1",
        digest="d" * 64,
        size_bytes=10,
        size_vram_bytes=4,
        expires_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("modelfile", "weights"),
    [
        (f"# FROM x:1\n\nFROM /m/blobs/sha256-{'a' * 64}\nTEMPLATE x", "a" * 64),
        (f"FROM C:\\m\\blobs\\sha256-{'a' * 64}\r\n", "a" * 64),
        (f"FROM /m n/blobs/sha256:{'a' * 64}", "a" * 64),
        (f"FROM /m/sha256-{'a' * 64}\nFROM /m/sha256-{'b' * 64}", "a" * 64),
        (f"FROM other:latest\nSYSTEM x\nFROM /m/sha256-{'a' * 64}", None),
        ("FROM plain", None),
        ("", None),
    ],
)
def test_weights_are_in_the_first_from_line(
    modelfile: str, weights: str | None
) -> None:
    assert a_show(modelfile=modelfile).weights == weights


@pytest.mark.parametrize(
    ("info", "context"),
    [
        ({"general.architecture": "llama", "llama.context_length": 8192}, 8192),
        ({"qwen3.context_length": 40960}, 40960),
        (
            {"general.architecture": "a", "a.vision.context_length": 77, "b.x": 1},
            None,
        ),
        ({"llama.rope.scaling.original_context_length": 8192}, None),
        ({"general.architecture": "llama", "llama.context_length": 0}, None),
        ({"general.architecture": "llama", "llama.context_length": True}, None),
        ({"general.architecture": "llama", "llama.context_length": 10**30}, None),
        ({"general.architecture": None, "llama.context_length": 8192}, 8192),
        ({"llama.context_length": 8192, "x": "y" * 2**20}, None),
        ({}, None),
        (None, None),
    ],
)
def test_trained_context_is_that_of_the_architecture(
    info: dict[str, object] | None, context: int | None
) -> None:
    assert a_show(model_info=info).context_trained == context


def test_parameter_count_is_exact_or_parsed_from_its_text() -> None:
    exact = a_show(model_info={"general.parameter_count": 8_030_261_312})
    result = read(ShowAnswer, details={"parameter_size": "8.0B"})

    assert exact.parameter_count == 8_030_261_312
    assert result.parameter_count == 8_000_000_000


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("134.92M", 134_920_000),
        ("125K", 125_000),
        ("1.5T", 1_500_000_000_000),
        ("7b", 7_000_000_000),
        ("512", 512),
        ("", None),
        ("8x7B", None),
        ("1.2.3B", None),
    ],
)
def test_human_readable_size_becomes_a_number(text: str, count: int | None) -> None:
    assert parse_parameter_count(text) == count


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("4096", 4096),
        ("0.7", 0.7),
        ("1e+06", 1_000_000.0),
        ("true", True),
        ("false", False),
        (r'"<|eot_id|>"', "<|eot_id|>"),
        (r'"a \"b\" \\ \n\t\x07\u00e9\U0001f600"', 'a "b" \\ \n\t\x07é😀'),
        (r'"\U00ffffff"', r"\U00ffffff"),
        (r'"\q"', "q"),
        ('"', '"'),
        ("nonsense", "nonsense"),
        ("", ""),
    ],
)
def test_parameter_is_read_in_the_format_of_go(written: str, value: object) -> None:
    assert parse_parameters(f"p{' ' * 30}{written}") == {"p": value}


def test_parameters_are_sorted_and_repeated_ones_become_lists() -> None:
    text = 'stop  "b"\ntop_k  2\nstop  "a"\nnum_ctx  8\nstop  "c"\n\n'

    parameters = parse_parameters(text)

    assert list(parameters) == ["num_ctx", "stop", "top_k"]
    assert parameters["stop"] == ["b", "a", "c"]


@pytest.mark.parametrize("value", ["inf", "nan", "true", '"8"', "1\np 2"])
def test_invalid_number_is_not_sent(value: str) -> None:
    show = a_show(parameters=f"num_ctx {value}".replace("\np", "\nnum_ctx"))

    assert show.num_ctx is None


def test_projector_is_recognized_by_its_details() -> None:
    assert a_show(projector_info={"clip.has_vision_encoder": True}).has_projector
    assert not a_show().has_projector


@given(st.text())
def test_any_parameter_text_is_read(text: str) -> None:
    parse_parameters(text)
    parse_parameter_count(text)
