"""The desired set: read strictly; what is written reads as the same set."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herdbook.core.desired.desired import (
    DesiredModel,
    DesiredSet,
    freeze,
    parse,
    read,
    toml_text,
)
from herdbook.core.errors import InvalidDesiredError
from herdbook.projections.status import ModelStatus

FILE = """
[models."llama3.1"]
loaded = true
num_ctx = 8192
keep_alive = "10m"
pinned = true
options.top_k = 40
capability.tools = false
note = "the agents' own"

[models."qwen2.5-coder:7b"]
"options.seed" = 7
"""

SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "num_ctx": st.integers(4, 2**31 - 1),
        "temperature": st.floats(0, 2),
        "pinned": st.booleans(),
        "notes": st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
        "keep_alive": st.sampled_from(["5m", -1, 1.5, "1h30m"]),
        "options.stop": st.lists(st.text(st.characters(exclude_categories=["Cs"]))),
        "options.min_p": st.floats(0, 1),
        "capability.vision": st.booleans(),
    },
)
MODELS = st.builds(
    DesiredModel,
    name=st.sampled_from(["llama3.1:8b", "me/mine:v2", "host:80/a/b:x", "a_b:latest"]),
    loaded=st.sampled_from([True, False, None]),
    settings=SETTINGS,
    note=st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
)


def test_file_names_models_settings_memory_and_reasons(tmp_path: Path) -> None:
    path = tmp_path / "herd.toml"
    path.write_text(FILE)

    first, second = read(path).models

    assert first == DesiredModel(
        name="llama3.1:latest",
        loaded=True,
        settings={
            "num_ctx": 8192,
            "keep_alive": "10m",
            "pinned": True,
            "options.top_k": 40,
            "capability.tools": False,
        },
        note="the agents' own",
    )
    assert second == DesiredModel(name="qwen2.5-coder:7b", settings={"options.seed": 7})


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("x = 1", "unknown table [x]. The only table is [models]"),
        ("", 'it has no models. Write a table for each model: [models."llama3.2"]'),
        ("models = 3", "key models must be a table"),
        ("[models]\na = 1", "model a must be a table: [models.a]"),
        ('[models."a b"]', "model a b is not a valid model name"),
        ("[models.a]\n[models.A]", "model A is defined twice"),
        ("[models.a]\nloaded = 1", "key loaded of model a must be true or false"),
        ("[models.a]\nnote = 1", "key note of model a must be text, not 1"),
        ("[models.a]\nnum_ctx = 1", "key num_ctx of model a must be a whole number"),
        (
            "[models.a]\ntop_k = 1",
            "key top_k of model a does not exist. Did you mean 'options.top_k'?",
        ),
        ("[models.a]\noptions.x = 1", "key options.x of model a does not exist"),
        (
            "[models.a]\nnum_ctx.x = [[1]]",
            "key num_ctx of model a must be a whole number of at least 4, such as",
        ),
        ("[models.a]\nnotes = 2026-01-01", "key notes of model a must be text"),
        ("[models.a]\nlaoded = true", "laoded of model a does not exist. Did you mean"),
        ("[models.a]\nnodes = 3", "key nodes of model a must be a list of node names"),
        ("[models.a]\ntags.x = 3", "key tags of model a must be a table of texts"),
        ("[models.a.2]\nnum_ctx = 8192", 'in quotes: [models."a.2"]'),
    ],
)
def test_error_has_file_model_and_key(text: str, result: str) -> None:
    with pytest.raises(InvalidDesiredError) as error:
        parse(tomllib.loads(text), origin="herd.toml")

    assert str(error.value).startswith("desired set herd.toml is not valid: ")
    assert result in str(error.value)


def test_file_that_is_not_toml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "herd.toml"
    path.write_text("[models")

    with pytest.raises(InvalidDesiredError, match="is not TOML"):
        read(path)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidDesiredError, match="cannot be read: No such file") as no:
        read(tmp_path / "herd.toml")
    with pytest.raises(InvalidDesiredError) as directory:
        read(tmp_path)

    assert no.value.remedy == "Check the path"
    assert directory.value.remedy == "Give the path of a file, not of a directory"


@given(st.lists(MODELS, unique_by=lambda model: model.name))
def test_written_file_reads_back_equal(models: list[DesiredModel]) -> None:
    desired = DesiredSet(models=tuple(models))

    assert parse(tomllib.loads(toml_text(desired))) == desired


def test_empty_server_freezes_to_a_valid_file() -> None:
    frozen = freeze([ModelStatus(node="local", name="gone:latest")])

    assert toml_text(frozen) == "[models]\n"
    assert parse(tomllib.loads(toml_text(frozen))).models == ()
