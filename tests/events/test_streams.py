"""Names of streams and their kinds."""

from __future__ import annotations

import pytest

from herdbook.events.errors import CallerError
from herdbook.events.streams import (
    LONGEST,
    check_node,
    check_stream,
    model_of,
    model_stream,
    node_of,
    node_stream,
)


def test_stream_of_a_model_names_node_and_model() -> None:
    stream = model_stream("local", "hf.co/bartowski/Llama:Q4_K_M")
    assert stream == "model/local/hf.co/bartowski/Llama:Q4_K_M"
    assert model_of(stream) == ("local", "hf.co/bartowski/Llama:Q4_K_M")
    assert node_of(stream) is None


def test_stream_of_a_node_names_the_node() -> None:
    assert node_stream("local") == "node/local"
    assert node_of("node/local") == "local"
    assert model_of("node/local") is None


@pytest.mark.parametrize("stream", ["", "model", "model/n", "model/n/", "x/n/m"])
def test_other_streams_are_of_no_model(stream: str) -> None:
    assert model_of(stream) is None


@pytest.mark.parametrize("stream", ["node", "node/", "node/a/b"])
def test_other_streams_are_of_no_node(stream: str) -> None:
    assert node_of(stream) is None


@pytest.mark.parametrize("node", ["a", "0", "gpu-1.example_com", "n" * 64])
def test_name_of_a_node_is_let_through(node: str) -> None:
    assert check_node(node) == node


@pytest.mark.parametrize("node", ["", "-a", ".a", "a/b", "a b", "ü", "n" * 65, "a\n"])
def test_an_invalid_node_name_is_refused(node: str) -> None:
    with pytest.raises(CallerError):
        check_node(node)


def test_name_of_a_stream_has_an_end() -> None:
    assert check_stream("s" * LONGEST)
    with pytest.raises(CallerError):
        check_stream("s" * (LONGEST + 1))
