"""Answers of the API: tolerant of age, strict about form."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded_wire import recorded

from herdbook.core.wire import (
    Answer,
    PsAnswer,
    RunnerEntry,
    ShowAnswer,
    TagEntry,
    TagsAnswer,
    parse_parameters,
    parse_size,
)
from herdbook.events.facts import Runner

Kind = TypeVar("Kind", bound=Answer)


def read(kind: type[Kind], **keys: object) -> Kind:
    return msgspec.json.decode(msgspec.json.encode(keys), type=kind)


def a_show(**keys: object) -> ShowAnswer:
    return read(ShowAnswer, details={}, **keys)


def shown(file: str, name: str) -> ShowAnswer:
    """Return what a server showed of a model, from the recording ``file``."""
    for found, answer, asked in recorded("POST", "/api/show"):
        if (found, asked.json) == (file, {"model": name}):
            return msgspec.json.decode(answer.body, type=ShowAnswer)
    raise LookupError(name)


@pytest.mark.parametrize("file", ["discovery.json", "older/discovery.json"])
def test_a_model_is_shown_with_all_that_is_asked_of_it(file: str) -> None:
    show = shown(file, "llama3.2:1b")

    assert show.weights == (
        "ba39aa794179912b50888ffec291cf28fa9e59016fe20d60bb331cc71a494d14"
    )
    assert show.context_trained == 8192
    assert show.embedding_length == 64
    assert show.parameter_count == 124_864
    assert (show.num_ctx, show.temperature) == (2048, 0.7)
    assert show.parameters == {
        "num_ctx": 2048,
        "stop": ["<|user|>", "<|assistant|>"],
        "temperature": 0.7,
    }
    assert show.capabilities == ["completion", "tools"]


def test_a_model_without_parameters_asks_for_nothing() -> None:
    show = shown("discovery.json", "plain:latest")

    assert (show.parameters, show.num_ctx, show.temperature) == ({}, None, None)


def test_older_tags_lack_what_newer_ones_have() -> None:
    (_, answer, _), *_ = (
        found
        for found in recorded("GET", "/api/tags")
        if found[0] == "older/discovery.json"
    )
    entries = msgspec.json.decode(answer.body, type=TagsAnswer).models or []

    assert {entry.capabilities for entry in entries} == {None}
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
    entry = read(TagEntry, name="x:1", digest="d", modified_at=written)

    assert entry.modified_at is not None
    assert entry.modified_at.isoformat() == utc
    assert entry.modified_at.tzinfo is UTC


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (TagsAnswer, b"{}"),
        (TagsAnswer, b'{"models": {}}'),
        (TagsAnswer, b'{"models": [{"name": 7, "digest": "d"}]}'),
        (TagsAnswer, b'{"models": [{"name": "x"}]}'),
        (PsAnswer, b"{}"),
        (
            PsAnswer,
            b'{"models": [{"name": "x", "digest": "d", "expires_at": "soon"}]}',
        ),
        (
            PsAnswer,
            b'{"models": [{"name": "", "digest": "", "expires_at": "2026-08-20T08"}]}',
        ),
        (ShowAnswer, b"{}"),
        (ShowAnswer, b"[]"),
    ],
)
def test_what_has_another_form_is_not_guessed(kind: type[Answer], body: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(body, type=kind)


def test_null_lists_and_unknown_keys_are_taken() -> None:
    tags = msgspec.json.decode(b'{"models": null, "more": 1}', type=TagsAnswer)
    entry = read(TagEntry, name="x", digest="d", details={"families": None}, new=[1])

    assert (tags.models, entry.details.families) == (None, None)


def test_a_runner_is_recorded_as_it_is_listed() -> None:
    entry = read(
        RunnerEntry,
        name="x:1",
        digest="d",
        size=10,
        size_vram=4,
        expires_at="2026-01-01T01:00:00+01:00",
    )

    assert entry.runner == Runner(
        name="x:1",
        digest="d",
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
def test_the_weights_stand_in_the_first_from_line(
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
        ({}, None),
        (None, None),
    ],
)
def test_the_trained_context_is_the_architectures_own(
    info: dict[str, object] | None, context: int | None
) -> None:
    assert a_show(model_info=info).context_trained == context


def test_the_count_of_parameters_is_exact_or_from_the_text_for_people() -> None:
    exact = a_show(model_info={"general.parameter_count": 8_030_261_312})
    told = read(ShowAnswer, details={"parameter_size": "8.0B"})

    assert exact.parameter_count == 8_030_261_312
    assert told.parameter_count == 8_000_000_000


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
def test_a_size_for_people_becomes_a_number(text: str, count: int | None) -> None:
    assert parse_size(text) == count


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
def test_a_parameter_is_read_as_go_writes_it(written: str, value: object) -> None:
    assert parse_parameters(f"p{' ' * 30}{written}") == {"p": value}


def test_parameters_are_sorted_and_those_given_again_are_lists() -> None:
    text = 'stop  "b"\ntop_k  2\nstop  "a"\nnum_ctx  8\nstop  "c"\n\n'

    parameters = parse_parameters(text)

    assert list(parameters) == ["num_ctx", "stop", "top_k"]
    assert parameters["stop"] == ["b", "a", "c"]


@pytest.mark.parametrize("value", ["inf", "nan", "true", '"8"', "1\np 2"])
def test_a_number_that_is_none_is_not_asked_for(value: str) -> None:
    show = a_show(parameters=f"num_ctx {value}".replace("\np", "\nnum_ctx"))

    assert show.num_ctx is None


def test_a_projector_is_known_by_what_it_tells() -> None:
    assert a_show(projector_info={"clip.has_vision_encoder": True}).has_projector
    assert not a_show().has_projector


@given(st.text())
def test_any_text_of_parameters_is_read(text: str) -> None:
    parse_parameters(text)
    parse_size(text)
