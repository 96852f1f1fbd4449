"""Suggestions for unknown names."""

from __future__ import annotations

import pytest

from herdbook.core.errors.suggestions import did_you_mean_model

PRESENT = ("codellama:7b", "llama3.1:8b", "llama3.2:1b", "plain:latest", "qwen3:0.6b")


@pytest.mark.parametrize(
    ("given", "suggested"),
    [
        ("llama3.1:latest", "llama3.1:8b or llama3.2:1b"),
        ("codelama:latest", "codellama:7b"),
        ("CodeLlama:13b", "codellama:7b"),
        ("llama:latest", "llama3.2:1b or llama3.1:8b"),
        ("lama3.1:8b", "llama3.1:8b or llama3.2:1b"),
        ("qw:latest", "qwen3:0.6b"),
        ("code:latest", "codellama:7b"),
    ],
)
def test_similar_models_are_suggested(given: str, suggested: str) -> None:
    assert did_you_mean_model(given, PRESENT) == f"Did you mean {suggested}?"


@pytest.mark.parametrize("given", ["phi4:latest", "p:latest", "8b:latest"])
def test_nothing_is_suggested_for_another_model(given: str) -> None:
    assert did_you_mean_model(given, PRESENT) == ""


@pytest.mark.parametrize("given", ["tiny:latest", "tinny:latest", "lib/tiny:q8"])
def test_name_may_lack_its_first_parts(given: str) -> None:
    assert (
        did_you_mean_model(given, ["hf.co/ann/tiny:q4", "other:latest"])
        == "Did you mean hf.co/ann/tiny:q4?"
    )
