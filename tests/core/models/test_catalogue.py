from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from herdbook.core.errors import InvalidCatalogueError
from herdbook.core.models import catalogue
from herdbook.core.models.registry import ModelRegistry
from herdbook.projections.roles import ModelRole


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "mine.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_shipped_catalogue_ranks_only_what_fits() -> None:
    shipped, registry = catalogue.shipped(), ModelRegistry()
    for role, keys in shipped.roles.items():
        assert [m.name for m in registry.for_role(role)][: len(keys)] == list(keys)


def test_shipped_catalogue_names_a_source_for_every_fact() -> None:
    for key, entry in catalogue.shipped().entries.items():
        assert not any("catalogue" in s.title for s in entry.sources.values()), key


def test_file_is_read_with_sources(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
        [sources.card]
        title = "The model's card"
        date = 2026-01-02
        [models.yak]
        context = 2048
        temperature = 1
        source = "card"
        [models.ox]
        context = 512
        [roles]
        fast = ["Yak:latest"]
        """,
    )
    read = catalogue.read(path)
    assert read.entries["yak"].sources["context"].date == "2026-01-02"
    assert read.entries["ox"].sources["context"].title == f"catalogue {path}"
    assert read.roles == {ModelRole.FAST: ("yak",)}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "[models.yak]\ncontext = 'much'",
            "model yak, key context: must be a whole number, not text",
        ),
        ("[models.yak]\ncontext = 0", "model yak, key context: must be at least 1"),
        (
            "[models.yak]\ntemperature = 9",
            "model yak, key temperature: must be at most 2",
        ),
        ("[models.yak]\ntools = 1", "model yak, key tools: must be true or false"),
        ("[models.yak]\nhorns = 2", "model yak, key horns: unknown key"),
        ("[models.yak]\nsource = 'x'", "model yak, key source: unknown source x"),
        (
            "[models.yak]\ntools = true\nsources = {tools = 'x'}",
            "model yak, key sources.tools: unknown source x",
        ),
        (
            "[models.yak]\nsources = {tools = 'x'}",
            "model yak, key sources.tools: the model has no such fact",
        ),
        ("[models.yak]\n[models.YAK]", "model YAK: it is listed twice"),
        ("[models]\nyak = 3", "model yak: must be an object, not a whole number"),
        ("models = 3", "models: must be an object, not a whole number"),
        ("[sources.x]\ntitle = ''", "source x, key title"),
        ("[sources.x]\ntitle = 'x'\ndate = 'soon'", "source x, key date"),
        ("[herd]", "unknown table [herd]. The tables are sources, models"),
        (
            "[roles]\npoetry = []",
            "roles, key poetry: unknown role; the roles are general",
        ),
        ("[roles]\nfast = 'yak'", "role fast: must be a list, not text"),
        ("[roles]\nfast = ['yak']", "role fast, model yak: no such model"),
    ],
)
def test_error_is_one_line_with_file_model_and_key(
    tmp_path: Path, text: str, reason: str
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InvalidCatalogueError) as refused:
        ModelRegistry().with_catalogue(path)
    message = str(refused.value)
    assert message.startswith(f"catalogue {path} is not valid")
    assert reason in message
    assert "\n" not in message


def test_invalid_catalogue_is_not_applied_at_all(tmp_path: Path) -> None:
    registry = ModelRegistry()
    before = list(registry)
    path = written(tmp_path, "[models.yak]\ntools = true\n[models.ox]\ntools = 1")
    with pytest.raises(InvalidCatalogueError):
        registry.with_catalogue(path)
    assert list(registry) == before


@pytest.mark.parametrize("text", [b"models = [", b"# \xff"])
def test_file_that_is_not_toml_is_refused(tmp_path: Path, text: bytes) -> None:
    with pytest.raises(InvalidCatalogueError, match="is not TOML"):
        catalogue.read(written(tmp_path, text))


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidCatalogueError, match="cannot be read: No such file"):
        ModelRegistry().with_catalogue(str(tmp_path / "none.toml"))


def test_dates_can_be_toml_dates_or_text() -> None:
    sources = {"x": {"title": "x", "date": date(2026, 1, 2)}}
    models = {"yak": {"tools": True, "source": "x"}}
    read = catalogue.parse({"sources": sources, "models": models}, origin="here")
    assert read.entries["yak"].sources["tools"].date == "2026-01-02"
