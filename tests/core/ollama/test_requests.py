"""Lines from chunks: however they are cut, the lines are the same."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from herdbook.core.errors import BadAnswerError, DiskFullError
from herdbook.core.ollama.bounds import LONGEST_MESSAGE
from herdbook.core.ollama.failures import Request
from herdbook.core.ollama.requests import MOST_LAYERS, Call, LineReader, refusal

PULL = Call("POST", "/api/pull", {"model": "m"}, "m", Request.PULL)
STREAM = (
    b'{"status":"pulling manifest"}\n'
    b'{"status":"pulling \xc3\xa9","digest":"d","total":9,"completed":3}\n\r\n'
    b'{"status":"success"}\n'
)


def a_reader(longest: int = 1000) -> LineReader:
    return LineReader(PULL, node="Ollama at x", longest=longest)


@given(st.lists(st.integers(0, len(STREAM)), max_size=10).map(sorted))
def test_lines_do_not_depend_on_how_chunks_are_cut(cuts: list[int]) -> None:
    reader = a_reader()

    lines = [
        line.status
        for begin, end in zip([0, *cuts], [*cuts, len(STREAM)], strict=True)
        for line in reader.feed(STREAM[begin:end])
    ]

    assert lines == ["pulling manifest", "pulling é", "success"]


def test_lines_before_an_error_are_still_yielded() -> None:
    chunk = STREAM + b'{"error":"write x: no space left on device"}\n' + STREAM
    lines = a_reader().feed(chunk)

    assert [next(lines).status for _ in range(3)][-1] == "success"
    with pytest.raises(DiskFullError):
        next(lines)


def test_endless_line_is_given_up() -> None:
    reader = a_reader(longest=20)

    assert list(reader.feed(b"{" * 20)) == []
    with pytest.raises(BadAnswerError, match="over 20 B"):
        list(reader.feed(b"{"))


def test_pull_with_too_many_layers_is_given_up() -> None:
    lines = b"".join(
        b'{"status":"pulling","digest":"sha256:%d"}\n' % number
        for number in range(MOST_LAYERS + 1)
    )
    reader = a_reader()
    with pytest.raises(BadAnswerError, match="layers"):
        list(reader.feed(lines))


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_line_is_too_long_with_its_end_or_without(end: bytes) -> None:
    reader = a_reader()
    with pytest.raises(BadAnswerError, match="line"):
        list(reader.feed(b'{"status":"' + b"x" * 1000 + b'"}' + end))


def test_error_text_of_the_server_is_truncated() -> None:
    body = msgspec.json.encode({"error": "x" * 10**6})
    error = refusal(PULL, 500, body, node="it")
    assert len(getattr(error, "raw", "")) == LONGEST_MESSAGE


@pytest.mark.parametrize(
    ("rest", "statuses"),
    [
        (b'{"status":"success"}', ["success"]),
        (b'{"status":"succ', []),
        (b" \r", []),
        (b"", []),
    ],
)
def test_last_line_does_not_need_a_newline(rest: bytes, statuses: list[str]) -> None:
    reader = a_reader()
    assert list(reader.feed(rest)) == []

    assert [line.status for line in reader.end()] == statuses
    assert list(reader.end()) == []


def test_last_line_without_a_newline_can_be_an_error() -> None:
    reader = a_reader()
    assert list(reader.feed(b'{"error":"write x: no space left on device"}')) == []

    with pytest.raises(DiskFullError):
        list(reader.end())
