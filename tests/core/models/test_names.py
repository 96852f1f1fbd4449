"""Names of models: Ollama's grammar, and one spelling per model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herdbook.core.errors import CallerError, InvalidNameError
from herdbook.core.models.names import ModelName, canonical_name, parse_name, same_name

FIRST = "abcXYZ019_"


def parts(later: str, longest: int) -> st.SearchStrategy[str]:
    """Return the texts that a part of a name may be."""
    rest = st.text(FIRST + later, max_size=longest - 1)
    return st.builds("".join, st.tuples(st.sampled_from(FIRST), rest))


names = st.builds(
    ModelName,
    host=parts(".:-", 350),
    namespace=parts("-", 80),
    model=parts(".-", 80),
    tag=parts(".-", 80).filter(lambda tag: "cloud" not in tag),
)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("llama3.1", "llama3.1:latest"),
        ("llama3.1:8b", "llama3.1:8b"),
        (" llama3.1 ", "llama3.1:latest"),
        ("library/llama3.1", "llama3.1:latest"),
        ("Registry.Ollama.ai/Library/x:1", "x:1"),
        ("registry.ollama.ai/me/x", "me/x:latest"),
        ("me/x", "me/x:latest"),
        ("hf.co/me/Repo-7.GGUF:Q4_K_M", "hf.co/me/Repo-7.GGUF:Q4_K_M"),
        ("hf.co/library/x", "hf.co/library/x:latest"),
        ("localhost:5000/me/x", "localhost:5000/me/x:latest"),
        ("http://localhost:5000/me/x:t", "localhost:5000/me/x:t"),
        ("https://registry.ollama.ai/library/x", "x:latest"),
        ("LLaMA3", "LLaMA3:latest"),
    ],
)
def test_a_name_has_one_canonical_spelling(text: str, canonical: str) -> None:
    assert canonical_name(text) == canonical


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("kimi:cloud", "kimi:cloud"),
        ("kimi:CLOUD", "kimi:cloud"),
        ("gpt-oss:20b:cloud", "gpt-oss:20b-cloud"),
        ("gpt-oss:20b-cloud", "gpt-oss:20b-cloud"),
        ("gpt-oss:20b-Cloud", "gpt-oss:20b-cloud"),
        ("my-cloud-model", "my-cloud-model:latest"),
        ("localhost:5000/me/x-cloud", "localhost:5000/me/x-cloud:latest"),
        ("plain:local", "plain:latest"),
        ("gpt-oss:20b:local", "gpt-oss:20b"),
    ],
)
def test_cloud_tag_is_read_as_a_pull_reads_it(text: str, canonical: str) -> None:
    assert canonical_name(text) == canonical


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "bad name",
        "plain:",
        ":tag",
        "/model",
        "http://",
        "a/b/c/d/e",
        "x@sha256-0123",
        "ns.with.dot/model",
        "-x",
        "x:-tag",
        ".x",
        "modèle",
        "x" * 81,
        "x:" + "t" * 81,
        "h" * 351 + "/ns/x",
        "a://b://c/ns/x",
        "foo:cloud:local",
        "foo:20b-cloud:cloud",
    ],
)
def test_an_invalid_name_is_refused_with_a_remedy(text: str) -> None:
    with pytest.raises(InvalidNameError) as raised:
        canonical_name(text)

    assert isinstance(raised.value, CallerError)
    assert raised.value.name == text
    assert raised.value.remedy


def test_names_that_differ_only_in_case_are_the_same_model() -> None:
    assert same_name("LLama3.1", "llama3.1:LATEST")
    assert not same_name("llama3.1", "llama3.1:8b")


def test_a_name_shows_its_base_and_its_tag() -> None:
    name = parse_name("hf.co/me/repo:Q4")

    assert (name.base, name.tag) == ("hf.co/me/repo", "Q4")
    assert parse_name("llama3.1").base == "llama3.1"


@given(names)
def test_canonical_name_parses_to_itself(name: ModelName) -> None:
    again = parse_name(str(name))

    assert str(again) == str(name)
    assert again.model == name.model
    assert again.tag == name.tag


@given(st.text(max_size=40))
def test_any_text_is_a_valid_name_or_refused(text: str) -> None:
    try:
        canonical = canonical_name(text)
    except InvalidNameError:
        return

    assert canonical_name(canonical) == canonical
    assert canonical.isascii()
