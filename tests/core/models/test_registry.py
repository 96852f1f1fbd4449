from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herdbook.core.errors import InvalidCatalogueError, UnknownRoleError
from herdbook.core.models.registry import (
    DEFAULT_CONTEXT,
    ModelCapabilities,
    ModelFamily,
    ModelRegistry,
    words_of,
)
from herdbook.events.facts import FactSource
from herdbook.projections.roles import ModelRole

REGISTRY = ModelRegistry()
NAMES = sorted(model.name for model in REGISTRY)

FOUNDING = {
    # name: family, context, tools, vision, coding, temperature
    "llama3.1": ("llama", 128000, True, False, False, 0.7),
    "llama3.2-vision": ("llama", 128000, True, True, False, 0.7),
    "codellama": ("codellama", 16384, False, False, True, 0.2),
    "mistral": ("mistral", 32768, True, False, False, 0.7),
    "mixtral": ("mistral", 32768, True, False, False, 0.7),
    "gemma2": ("gemma", 8192, False, False, False, 0.7),
    "phi3": ("phi", 128000, False, False, False, 0.7),
    "qwen2.5": ("qwen", 32768, True, False, False, 0.7),
    "qwen2.5-coder": ("qwen", 32768, True, False, True, 0.2),
    "deepseek-coder": ("deepseek", 16384, False, False, True, 0.2),
}


@pytest.mark.parametrize("name", FOUNDING)
def test_registry_knows_the_models_of_the_first_version(name: str) -> None:
    model = REGISTRY.find(name)
    assert model is not None
    can = model.capabilities
    result = (can.context, can.tools, can.vision, can.coding, can.temperature)
    assert (model.family, *result) == FOUNDING[name]
    assert can.json_mode
    assert not can.embedding
    assert isinstance(model.family, ModelFamily)


def test_every_fact_has_a_source_with_a_date() -> None:
    for model in REGISTRY:
        assert model.sources
        assert all(source.title and source.date for source in model.sources.values())


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("llama3.1", "llama3.1"),
        ("llama3.1:latest", "llama3.1"),
        ("LLaMA3.1:8B", "llama3.1"),
        ("llama3.1-short", "llama3.1"),
        ("qwen2.5-coder-instruct:7b", "qwen2.5-coder"),
        ("qwen2.5-7b", "qwen2.5"),
        ("mistral7b", "mistral"),
        ("user/llama3.1", "llama3.1"),
        ("hf.co/x/Qwen2.5-Coder-7B-GGUF", "qwen2.5-coder"),
        ("hf.co/x/gemma-2-9b-it-GGUF:Q4_K_M", "gemma2"),
        ("localhost:5000/x/gemma4:26b", "gemma4"),
        ("gpt-oss:120b:cloud", "gpt-oss"),
        ("llama3.2-vision:90b", "llama3.2-vision"),
    ],
)
def test_lookup_finds_the_known_model_of_a_name(name: str, known: str) -> None:
    found = REGISTRY.find(name)
    assert found is not None
    assert found.name == known


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("llama3.1", 4_700_000_000),
        ("llama3.1:8b", 4_700_000_000),
        ("GEMMA3:27b", 17_000_000_000),
        ("deepseek-r1:671b", 404_000_000_000),
        ("gemma3:27b-it-qat", None),
        ("user/llama3.1:8b", None),
        ("llama3.1-short:8b", None),
    ],
)
def test_size_of_a_usual_tag_is_known(name: str, size: int | None) -> None:
    known = REGISTRY.find(name)
    assert known is not None
    found = known.download_of(name)
    assert (found and found[0]) == size
    assert found is None or found[1].title


@pytest.mark.parametrize(
    "name",
    ["llamafoo", "llama", "llama3.10", "phi3.5", "mistral/foo", "mixtralish", "", ":"],
)
def test_lookup_does_not_guess(name: str) -> None:
    assert REGISTRY.find(name) is None


@given(st.sampled_from(NAMES), st.text(string.ascii_lowercase + "0-_:.", max_size=12))
def test_lookup_ignores_what_follows_a_word_boundary(name: str, rest: str) -> None:
    found = REGISTRY.find(f"{name}-{rest}")
    assert found is not None
    assert words_of(f"{name}-{rest}")[: len(words_of(found.name))] == words_of(
        found.name
    )
    assert len(found.name) >= len(name)


@given(st.text(max_size=40))
def test_lookup_accepts_any_text_in_any_case(name: str) -> None:
    found = REGISTRY.find(name)
    assert found is REGISTRY.find(name.lower())


@given(st.sampled_from(NAMES), st.text(string.ascii_letters + "0123.-_", min_size=1))
def test_lookup_ignores_tag_namespace_and_case(name: str, tag: str) -> None:
    for spelling in (f"{name}:{tag}", f"ns/{name}:{tag}", name.upper()):
        found = REGISTRY.find(spelling)
        assert found is not None
        assert found.name == name


def test_capabilities_of_an_unknown_model_are_the_defaults() -> None:
    can = REGISTRY.capabilities("nobody-knows")
    assert can == ModelCapabilities()
    assert can.context == DEFAULT_CONTEXT == 4096
    assert can.names == {"completion", "json_mode"}
    assert can.source is FactSource.DEFAULT


def test_capabilities_of_a_known_model_come_from_the_registry() -> None:
    can = REGISTRY.capabilities("codellama:13b")
    assert can.coding
    assert can.source is FactSource.REGISTRY


def test_embedding_models_do_nothing_else() -> None:
    for model in REGISTRY.for_role(ModelRole.EMBEDDING):
        assert model.capabilities.names == {"embedding"}


@pytest.mark.parametrize("role", ModelRole)
def test_for_role_returns_fitting_models_by_rank(role: ModelRole) -> None:
    models = REGISTRY.for_role(role)
    assert models
    assert all(model.lacks(role) is None for model in models)
    ranks = [model.ranks[role] for model in models if role in model.ranks]
    assert ranks == list(range(1, len(ranks) + 1))
    assert all(role not in model.ranks for model in models[len(ranks) :])


@pytest.mark.parametrize("name", ["ToolUse", "tool_use", "TOOL-USE", "tools"])
def test_for_role_accepts_a_role_in_any_case(name: str) -> None:
    assert REGISTRY.for_role(name) == REGISTRY.for_role(ModelRole.TOOL_USE)


def test_for_role_refuses_an_unknown_role_and_lists_the_known_ones() -> None:
    with pytest.raises(UnknownRoleError) as refused:
        REGISTRY.for_role("poetry")
    assert all(role in str(refused.value) for role in ModelRole)


def test_fast_prefers_few_parameters_and_then_a_short_context() -> None:
    fast = {model.name for model in REGISTRY.for_role(ModelRole.FAST)}
    assert {"llama3.2", "gemma2"} <= fast
    assert not {"llama3.1", "codellama", "qwen3.5"} & fast


def test_suggest_excludes_present_models() -> None:
    names = [s.model.name for s in REGISTRY.suggest("coding", present=["Qwen3-Coder"])]
    assert names[0] == "devstral-small-2"
    assert "qwen3-coder" not in names


@pytest.mark.parametrize("role", ModelRole)
def test_suggest_names_only_what_can_be_pulled(role: ModelRole) -> None:
    for suggestion in REGISTRY.suggest(role):
        assert suggestion.pull == suggestion.model.pull
        assert suggestion.model.sources["pull"].verified
        named = role.replace("_", " ")
        assert f"for the {named} role in the catalogue" in suggestion.reason


def test_suggest_puts_previously_used_models_first() -> None:
    usual = REGISTRY.suggest("coding")
    third, fifth = usual[2], usual[4]

    suggested = REGISTRY.suggest("coding", used=[fifth.pull, "unknown", third.pull])

    assert [one.pull for one in suggested[:2]] == [fifth.pull, third.pull]
    assert suggested[0].reason == f"used before; {fifth.reason}"
    rest = [one for one in usual if one not in (third, fifth)]
    assert list(suggested[2:]) == rest


def test_suggest_names_only_models_known_to_fit() -> None:
    suggested = REGISTRY.suggest("general", memory_bytes=10_000_000_000)
    assert suggested
    for suggestion in suggested:
        model = suggestion.model
        needed = model.memory_bytes or model.download_bytes
        assert needed is not None
        assert needed <= 10_000_000_000
        assert "of 10.0 GB" in suggestion.reason


def test_custom_catalogue_changes_only_its_own_entries() -> None:
    laid = REGISTRY.with_catalogue(
        {"models": {"Llama3.1:latest": {"context": 32_000, "tools": False}}}
    )
    model, before = laid.find("llama3.1:8b"), REGISTRY.find("llama3.1")
    assert model is not None
    assert before is not None
    assert (model.context, model.capabilities.tools) == (32_000, False)
    assert (model.temperature, model.family) == (before.temperature, before.family)
    assert model.sources["context"].title == "catalogue data"
    assert before.context == 128_000


def test_custom_catalogue_adds_models_families_and_ranks() -> None:
    laid = REGISTRY.with_catalogue(
        {
            "models": {"me/yak": {"family": "Yak", "coding": True}},
            "roles": {"Coding": ["me/yak", "codellama"]},
        }
    )
    yak = laid.find("me/yak:7b")
    assert yak is not None
    assert (yak.family, yak.context) == ("yak", DEFAULT_CONTEXT)
    order = [model.name for model in laid.for_role("coding")]
    assert order[:3] == ["me/yak", "codellama", "qwen3-coder"]
    assert laid.find("me-yak") is None
    assert len(laid) == len(REGISTRY) + 1


@pytest.mark.parametrize(
    ("models", "reason"),
    [
        (["nobody"], "role vision, model nobody: no such model"),
        (["codellama"], "role vision, model codellama: does not support vision"),
    ],
)
def test_custom_catalogue_cannot_rank_unsuitable_models(
    models: list[str], reason: str
) -> None:
    with pytest.raises(InvalidCatalogueError, match=reason):
        REGISTRY.with_catalogue({"roles": {"vision": models}})


def test_model_of_no_family_and_no_pull_is_never_suggested() -> None:
    laid = REGISTRY.with_catalogue(
        {"models": {"yak": {"coding": True}}, "roles": {"coding": ["yak"]}}
    )
    assert laid.for_role("coding")[0].family is None
    assert "yak" not in [s.model.name for s in laid.suggest("coding")]
