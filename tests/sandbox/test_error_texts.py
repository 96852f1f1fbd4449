"""Names, durations and dates as Go reads and writes them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from herdbook.sandbox.go_time import FOREVER, duration_s, go_date, keep_alive_s
from herdbook.sandbox.models.names import Name
from herdbook.sandbox.refusals import Refusal
from herdbook.sandbox.request_bodies import Body, read_body

INTO = "json: cannot unmarshal"
FIELD = "Go struct field GenerateRequest"
CHAT = "Go struct field ChatRequest.messages"
EMBED = "Go struct field EmbedRequest"
KEY = "looking for beginning of object key string"
THINKING = '"high", "medium", "low", "max", true, or false'


@pytest.mark.parametrize(
    ("text", "display"),
    [
        ("plain", "plain:latest"),
        ("registry.ollama.ai/library/plain", "plain:latest"),
        ("ns/Other:V1", "ns/Other:V1"),
        ("hf.co/user/repo.v1:Q4_K_M", "hf.co/user/repo.v1:Q4_K_M"),
        ("localhost:5000/ns/model", "localhost:5000/ns/model:latest"),
        ("http://127.0.0.1:5055/library/x", "127.0.0.1:5055/library/x:latest"),
    ],
)
def test_name_is_displayed_in_its_shortest_form(text: str, display: str) -> None:
    name = Name.parse(text)

    assert name is not None
    assert name.display == display


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bad name",
        "-x",
        "plain:",
        ":latest",
        "a/b/c/d/e",
        "x@sha256-00",
        "é",
        "http://x/y",
    ],
)
def test_invalid_name_is_refused_as_a_whole(text: str) -> None:
    assert Name.parse(text) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1h30m", 5400.0), ("90s", 90.0), ("-1m", -60.0), ("1.5m", 90.0), ("0", 0.0)],
)
def test_duration_is_parsed(text: str, seconds: float) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("5", 'time: missing unit in duration "5"'),
        ("abc", 'time: invalid duration "abc"'),
        ("5x", 'time: unknown unit "x" in duration "5x"'),
    ],
)
def test_invalid_duration_is_refused_in_the_words_of_go(text: str, words: str) -> None:
    with pytest.raises(Refusal) as refused:
        duration_s(text)

    assert refused.value.text == words


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(None, None), (300, 300.0), (3.5, 3.5), (-1, FOREVER), ("-1m", FOREVER), (0, 0.0)],
)
def test_keep_alive_is_parsed(value: object, seconds: float | None) -> None:
    assert keep_alive_s(value) == seconds


def test_huge_keep_alive_overflows() -> None:
    assert keep_alive_s(1e30) == -1.0
    assert keep_alive_s(1e30, whole_seconds=True) == 0.0


def test_keep_alive_of_another_type_is_refused() -> None:
    with pytest.raises(Refusal, match="Unsupported type: 'map"):
        keep_alive_s({})


def test_date_has_nanoseconds_without_trailing_zeros() -> None:
    assert go_date(datetime(2026, 1, 1, tzinfo=UTC)) == "2026-01-01T00:00:00Z"
    assert go_date(datetime(2026, 1, 1, 0, 0, 0, 3, UTC)) == (
        "2026-01-01T00:00:00.000003757Z"
    )


def test_date_is_shown_in_the_zone_of_the_server() -> None:
    result = go_date(datetime(2026, 1, 1, tzinfo=UTC), zone_minutes=-420)

    assert result == "2025-12-31T17:00:00-07:00"


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "missing request body"),
        (b" \n", "missing request body"),
        (b"{", "unexpected EOF"),
        (b'{"model":"x', "unexpected EOF"),
        (b"tru", "unexpected EOF"),
        (b"trux", "invalid character 'x' in literal true (expecting 'e')"),
        (b"x", "invalid character 'x' looking for beginning of value"),
        (b"\xff\xfe", "invalid character 'ÿ' looking for beginning of value"),
        (b'{"a":NaN}', "invalid character 'N' looking for beginning of value"),
        (b'{"a":1,}', f"invalid character '}}' {KEY}"),
        (b"{'a':1}", rf"invalid character '\'' {KEY}"),
        (b'{"a" "x"}', "invalid character '\"' after object key"),
        (b'{"a":1 "b"}', "invalid character '\"' after object key:value pair"),
        (b'{"a":"{" 1}', "invalid character '1' after object key:value pair"),
        (b'{"a":[1}', "invalid character '}' after array element"),
        (b"[1,]", "invalid character ']' looking for beginning of value"),
        (rb'{"a":"\q"}', "invalid character 'q' in string escape code"),
        (b"[]", f"{INTO} array into Go value of type api.GenerateRequest"),
        (b'{"MODEL":1}', f"{INTO} number into {FIELD}.model of type string"),
        (b'{"context":"x"}', f"{INTO} string into {FIELD}.context of type []int"),
        (b'{"raw":0}', f"{INTO} number into {FIELD}.raw of type bool"),
        (b'{"keep_alive":true}', "Unsupported type: 'bool'"),
        (b'{"raw":0,"keep_alive":"5"}', 'time: missing unit in duration "5"'),
        (b'{"think":"x"}', f'invalid think value: "x" (must be {THINKING})'),
        (b'{"think":1}', f"think must be a boolean or string ({THINKING})"),
        (b'{"images":["a b"]}', "illegal base64 data at input byte 1"),
        (b'{"images":["aGVsb"]}', "illegal base64 data at input byte 4"),
    ],
)
def test_body_is_refused_in_the_words_of_go(raw: bytes, words: str) -> None:
    with pytest.raises(Refusal) as refused:
        read_body(raw, "api.GenerateRequest")

    assert (refused.value.status, refused.value.text) == (400, words)


@pytest.mark.parametrize(
    ("struct", "raw", "words"),
    [
        ("openai.CompletionRequest", b"", "EOF"),
        (
            "openai.ChatCompletionRequest",
            b"[]",
            f"{INTO} array into Go value of type openai.ChatCompletionRequest",
        ),
        (
            "api.ChatRequest",
            b'{"messages":[{"role":1}]}',
            f"{INTO} number into {CHAT}.role of type string",
        ),
        (
            "api.ChatRequest",
            b'{"messages":["x"]}',
            f"{INTO} string into {CHAT} of type api.Alias",
        ),
        (
            "api.CreateRequest",
            b'{"files":{"a":1}}',
            f"{INTO} number into Go struct field CreateRequest.files of type string",
        ),
        (
            "api.EmbedRequest",
            b'{"dimensions":1.5}',
            f"{INTO} number 1.5 into {EMBED}.dimensions of type int",
        ),
    ],
)
def test_fields_have_the_types_of_their_struct(
    struct: str, raw: bytes, words: str
) -> None:
    with pytest.raises(Refusal) as refused:
        read_body(raw, struct)

    assert refused.value.text == words


@pytest.mark.parametrize(
    ("struct", "raw"),
    [
        ("api.ShowRequest", b'{"model":"x"} and more'),
        ("api.CopyRequest", b'{"model":1,"stream":"x"}'),
        ("api.DeleteRequest", b'{"options":[],"keep_alive":true}'),
        ("anthropic.MessagesRequest", b'{"system":[{"type":"text"}]}'),
    ],
)
def test_what_go_does_not_read_is_ignored(struct: str, raw: bytes) -> None:
    assert isinstance(read_body(raw, struct), Body)


def test_only_some_requests_have_the_old_field_for_the_model() -> None:
    assert read_body(b'{"name":"x"}', "api.ShowRequest").model == "x"
    assert read_body(b'{"name":"x"}', "api.GenerateRequest").model == ""
