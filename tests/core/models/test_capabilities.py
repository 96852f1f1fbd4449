from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herdbook.core.models.capabilities import SERVER_WORDS, ModelMetadata, detect
from herdbook.core.models.registry import ModelRegistry
from herdbook.events.codec import decode, encode
from herdbook.events.facts import CapabilitiesDetected, Capability, FactSource

REGISTRY = ModelRegistry()


def capability(name: str, word: str, observed: ModelMetadata) -> Capability:
    return detect(name, observed, REGISTRY).capabilities[word]


def test_show_overrides_tags_and_the_difference_is_noted() -> None:
    observed = ModelMetadata(shown=("completion", "vision"), listed=("completion",))
    assert capability("x", "vision", observed) == Capability(
        value=True, source=FactSource.SHOW, evidence="tags: no"
    )
    assert capability("x", "completion", observed).evidence == ""


def test_details_only_in_tags_are_noted_next_to_show() -> None:
    observed = ModelMetadata(shown=("completion",), listed=("completion", "tools"))
    assert capability("x", "tools", observed) == Capability(
        value=False, source=FactSource.SHOW, evidence="tags: yes"
    )


def test_tags_decide_if_show_has_no_value() -> None:
    found = capability("llama3.1", "tools", ModelMetadata(listed=("completion",)))
    assert found == Capability(value=False, source=FactSource.TAGS)


@pytest.mark.parametrize(
    "observed", [ModelMetadata(), ModelMetadata(shown=(), listed=())]
)
def test_registry_decides_if_an_older_server_has_no_value(
    observed: ModelMetadata,
) -> None:
    assert capability("llama3.1:8b", "tools", observed) == Capability(
        value=True, source=FactSource.REGISTRY, evidence="llama3.1"
    )


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("foo-embed-text", "embedding"),
        ("foo-vl:2b", "vision"),
        ("qwen2.5vl:7b", "vision"),
        ("llama3.1-embed", "embedding"),
    ],
)
def test_name_decides_if_no_other_source_does(name: str, word: str) -> None:
    found = capability(name, word, ModelMetadata())
    assert (found.value, found.source) == (True, FactSource.NAME)


def test_unknown_model_gets_the_defaults() -> None:
    detected = detect("foo", ModelMetadata(), REGISTRY)
    can = {name for name, found in detected.capabilities.items() if found.value}
    sources = {found.source for found in detected.capabilities.values()}
    assert can == {"completion", "json"}
    assert sources == {FactSource.DEFAULT}
    assert (detected.context_trained, detected.ranks) == (4096, {})
    assert detected.context_source is FactSource.DEFAULT
    assert (detected.family, detected.temperature) == (None, None)


def test_unknown_capabilities_of_the_server_are_kept() -> None:
    found = capability("x", "audio", ModelMetadata(shown=("completion", "audio")))
    assert found == Capability(value=True, source=FactSource.SHOW)


@pytest.mark.parametrize(
    ("name", "observed", "json"),
    [
        ("x", ModelMetadata(shown=("completion",)), True),
        ("x", ModelMetadata(shown=("completion",), cloud=True), False),
        ("x", ModelMetadata(shown=("embedding",)), False),
        ("llama3.1", ModelMetadata(), True),
        ("nomic-embed-text", ModelMetadata(), False),
        ("foo-embed", ModelMetadata(), False),
        ("llama3.1-embed", ModelMetadata(), False),
    ],
)
def test_json_is_spoken_by_every_local_completion_model(
    name: str, observed: ModelMetadata, json: bool
) -> None:
    assert capability(name, "json", observed).value is json


def test_catalogue_can_deny_json_output() -> None:
    registry = REGISTRY.with_catalogue({"models": {"yak": {"json_mode": False}}})
    assert not detect("yak", ModelMetadata(), registry).capabilities["json"].value
    shown = ModelMetadata(shown=("completion",))
    assert detect("yak", shown, registry).capabilities["json"].value


@pytest.mark.parametrize(
    ("name", "shown", "source", "evidence"),
    [
        ("codellama:7b", ("completion",), FactSource.REGISTRY, "codellama"),
        ("foo", ("completion", "insert"), FactSource.SHOW, "insert"),
        ("opencoder", ("completion",), FactSource.NAME, "opencoder"),
        ("codestral:22b", ("completion",), FactSource.NAME, "codestral"),
        ("x/Devstral:24b", ("completion",), FactSource.NAME, "devstral"),
        ("starcoder2:3b", ("completion",), FactSource.NAME, "starcoder"),
        ("llama3.1-coder", ("completion",), FactSource.NAME, "coder"),
    ],
)
def test_coding_has_its_evidence(
    name: str, shown: tuple[str, ...], source: FactSource, evidence: str
) -> None:
    found = capability(name, "coding", ModelMetadata(shown=shown))
    assert found == Capability(value=True, source=source, evidence=evidence)


@pytest.mark.parametrize("name", ["llama3.1", "foo"])
def test_coding_is_denied_without_evidence(name: str) -> None:
    assert not capability(name, "coding", ModelMetadata(shown=("completion",))).value


@pytest.mark.parametrize(
    ("name", "observed", "tokens", "source"),
    [
        ("x", ModelMetadata(shown_context=9, listed_context=8), 9, FactSource.SHOW),
        ("x", ModelMetadata(listed_context=8), 8, FactSource.TAGS),
        ("llama3.1", ModelMetadata(), 128_000, FactSource.REGISTRY),
        ("llava", ModelMetadata(), 4096, FactSource.DEFAULT),
    ],
)
def test_trained_context_comes_from_the_strongest_source(
    name: str, observed: ModelMetadata, tokens: int, source: FactSource
) -> None:
    detected = detect(name, observed, REGISTRY)
    assert (detected.context_trained, detected.context_source) == (tokens, source)


def test_parameters_of_the_model_override_the_registry() -> None:
    detected = detect(
        "llama3.1", ModelMetadata(num_ctx=2048, temperature=0.0), REGISTRY
    )
    assert detected.context_default == 2048
    assert detected.temperature == 0.0
    assert detected.temperature_source is FactSource.SHOW


def test_registry_recommends_temperature_and_ranks() -> None:
    detected = detect("qwen2.5-coder:7b", ModelMetadata(), REGISTRY)
    assert (detected.temperature, detected.family) == (0.2, "qwen")
    assert detected.temperature_source is FactSource.REGISTRY
    assert detected.ranks == {"coding": 4, "tool_use": 8}


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("qwen3-coder:30b", 30_500_000_000),
        ("qwen3-coder:480b", None),
        ("llama3.2", 3_000_000_000),
        ("llama3.2:1b", None),
    ],
)
def test_parameter_count_is_expected_only_for_the_named_tag(
    name: str, count: int | None
) -> None:
    assert detect(name, ModelMetadata(), REGISTRY).parameter_count == count


WORDS = st.lists(st.sampled_from((*SERVER_WORDS, "audio")), unique=True).map(tuple)
OBSERVED = st.builds(
    ModelMetadata,
    shown=st.none() | WORDS,
    listed=st.none() | WORDS,
    shown_context=st.none() | st.integers(1, 10**7),
    num_ctx=st.none() | st.integers(1, 10**7),
    cloud=st.booleans(),
)
NAMES = st.sampled_from([model.name for model in REGISTRY]) | st.text(max_size=20)


@given(NAMES, OBSERVED)
def test_detection_is_complete_and_can_be_recorded(
    name: str, observed: ModelMetadata
) -> None:
    detected = detect(name, observed, REGISTRY)
    assert {*SERVER_WORDS, "json", "coding"} <= set(detected.capabilities)
    recorded = decode(CapabilitiesDetected.__name__, 2, encode(detected))
    assert recorded == detected


@given(NAMES, OBSERVED)
def test_recorded_capabilities_are_those_of_show(
    name: str, observed: ModelMetadata
) -> None:
    found = detect(name, observed, REGISTRY).capabilities
    if observed.shown:
        said = {word for word in found if found[word].value} - {"json", "coding"}
        assert said == set(observed.shown)
