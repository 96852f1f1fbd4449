"""The desired set: the models that a server should have, as TOML.

A file is read strictly: a mistake is an error that names file, model and key, and
nothing of the file is used. Models that the file does not name are left alone, unless
pruning is requested.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from herdbook.core.errors import (
    InvalidConfigurationError,
    InvalidDesiredError,
    InvalidNameError,
)
from herdbook.core.errors.suggestions import did_you_mean
from herdbook.core.models import configuration
from herdbook.core.models.names import canonical_name, name_key
from herdbook.core.models.toml_file import read_toml
from herdbook.events.facts import Setting
from herdbook.events.lifecycle import ModelState
from herdbook.projections.roles import CAPABILITY_SETTING
from herdbook.projections.status import ModelStatus

_TABLES = (configuration.OPTION, CAPABILITY_SETTING)
"""Prefixes of settings that may be written as a table of their own in TOML."""

_KEYS = ("loaded", "note", "nodes", "tags")
"""Keys of a model that are not settings."""

_BARE = re.compile(r"[A-Za-z0-9_-]+")


class DesiredModel(msgspec.Struct, frozen=True, kw_only=True):
    """One model of a desired set.

    Attributes:
        name: Canonical name.
        loaded: Whether it should be in memory; None leaves that as it is.
        settings: Desired settings by name.
        note: Reason, recorded with a change of the settings.
        nodes: Patterns of the nodes that should have it, such as ``gpu*``; empty for
            all that match ``tags``. Both empty: wherever it is, or at one place.
        tags: Tags that these nodes have.
    """

    name: str
    loaded: bool | None = None
    settings: dict[str, Setting] = {}
    note: str = ""
    nodes: tuple[str, ...] = ()
    tags: dict[str, str] = {}


class DesiredSet(msgspec.Struct, frozen=True, kw_only=True):
    """The models that a server should have.

    Attributes:
        models: The models, in the order of the file.
        origin: File or source, for errors.
    """

    models: tuple[DesiredModel, ...]
    origin: str = "data"


def read(path: Path) -> DesiredSet:
    """Read a desired set from a TOML file.

    Raises:
        InvalidDesiredError: The file cannot be read or is not valid.
    """
    data = read_toml(path, "desired set", InvalidDesiredError)
    return parse(data, origin=str(path))


def parse(data: Mapping[str, object], *, origin: str = "data") -> DesiredSet:
    """Convert the tables of a TOML document to a desired set.

    Raises:
        InvalidDesiredError: The document is not valid.
    """
    for name in sorted(data.keys() - {"models"}):
        raise InvalidDesiredError(
            f"desired set {origin}",
            f"is not valid: unknown table [{name}]",
            f"{did_you_mean(name, ['models'])}The only table is [models]",
        )
    if "models" not in data:
        raise InvalidDesiredError(
            f"desired set {origin}",
            "is not valid: it has no models",
            'Write a table for each model: [models."llama3.2"]',
        )
    tables = data["models"]
    if not isinstance(tables, Mapping):
        raise _invalid(origin, "", "models", "must be a table")
    models: dict[str, DesiredModel] = {}
    for name, table in tables.items():
        model = _model(origin, name, table)
        if name_key(model.name) in models:
            raise _invalid(origin, name, "", "is defined twice")
        models[name_key(model.name)] = model
    return DesiredSet(models=tuple(models.values()), origin=origin)


def _model(origin: str, name: str, table: object) -> DesiredModel:
    if not isinstance(table, Mapping):
        raise _invalid(origin, name, "", f"must be a table: [models.{_key(name)}]")
    try:
        canonical = canonical_name(name)
    except InvalidNameError as error:
        raise _invalid(origin, name, "", f"{error.state}. {error.remedy}") from error
    loaded, note = table.get("loaded"), table.get("note", "")
    if not isinstance(loaded, bool | None):
        raise _invalid(origin, name, "loaded", f"must be true or false, not {loaded!r}")
    if not isinstance(note, str):
        raise _invalid(origin, name, "note", f"must be text, not {note!r}")
    nodes, tags = table.get("nodes", []), table.get("tags", {})
    if not isinstance(nodes, list | tuple) or not all(
        isinstance(one, str) for one in nodes
    ):
        reason = f'must be a list of node names, such as ["gpu*"], not {nodes!r}'
        raise _invalid(origin, name, "nodes", reason)
    if not isinstance(tags, Mapping) or not all(
        isinstance(text, str) for text in tags.values()
    ):
        reason = f'must be a table of texts, such as {{ vram = "24GB" }}, not {tags!r}'
        raise _invalid(origin, name, "tags", reason)
    return DesiredModel(
        name=canonical,
        loaded=loaded,
        settings=dict(_settings(origin, name, table)),
        note=note,
        nodes=tuple(nodes),
        tags=dict(tags),
    )


def _settings(
    origin: str, name: str, table: Mapping[str, object]
) -> Iterator[tuple[str, Setting]]:
    for key, value in _flat(table):
        try:
            setting = msgspec.convert(value, Setting)
            configuration.check(key, setting)
        except msgspec.ValidationError as error:
            raise _invalid(origin, name, key, _wrong_type(name, key, value)) from error
        except InvalidConfigurationError as error:
            remedy = error.remedy
            if not remedy.startswith("Did you mean"):
                remedy = did_you_mean(key, _KEYS).strip() or remedy
            reason = ". ".join(filter(None, (error.state, remedy)))
            raise _invalid(origin, name, key, reason) from error
        yield key, setting


def _wrong_type(name: str, key: str, value: object) -> str:
    """Return what is wrong with a value that no setting can have."""
    if key in configuration.SETTINGS:
        return f"must be {configuration.SETTINGS[key]}, not {value}"
    if isinstance(value, Mapping):  # TOML splits a name without quotes at its dots
        quoted = _text(f"{name}.{key}")
        return f"is a table. Write a model name with dots in quotes: [models.{quoted}]"
    return f"cannot be {value}"


def _flat(table: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """Yield settings by full name; ``options.top_k`` may be written as a table."""
    for key, value in table.items():
        if key in _KEYS:
            continue
        if f"{key}." in _TABLES and isinstance(value, Mapping):
            yield from ((f"{key}.{name}", inner) for name, inner in value.items())
        else:
            yield key, value


def _invalid(origin: str, model: str, key: str, reason: str) -> InvalidDesiredError:
    parts = (f"key {key}" if key else "", f"model {model}" if model else "")
    place = " of ".join(part for part in parts if part)
    return InvalidDesiredError(
        f"desired set {origin}", f"is not valid: {place} {reason}"
    )


def freeze(statuses: Iterable[ModelStatus]) -> DesiredSet:
    """Return the present models with their settings as a desired set."""
    return DesiredSet(
        models=tuple(
            DesiredModel(
                name=status.name,
                loaded=True if status.state is ModelState.LOADED else None,
                settings=status.settings,
            )
            for status in statuses
            if status.present
        ),
        origin="the current state",
    )


def toml_text(desired: DesiredSet) -> str:
    """Format a desired set as TOML."""
    if not desired.models:
        return "[models]\n"
    return "\n".join("".join(_lines(model)) for model in desired.models)


def _lines(model: DesiredModel) -> Iterator[str]:
    yield f"[models.{_key(model.name)}]\n"
    if model.loaded is not None:
        yield f"loaded = {_value(model.loaded)}\n"
    for name, value in sorted(model.settings.items()):
        table, dot, rest = name.partition(".")
        key = f"{table}{dot}{_key(rest)}" if rest else name
        yield f"{key} = {_value(value)}\n"
    if model.note:
        yield f"note = {_value(model.note)}\n"
    if model.nodes:
        yield f"nodes = {_value([*model.nodes])}\n"
    if model.tags:
        pairs = (f"{_key(key)} = {_text(text)}" for key, text in model.tags.items())
        yield f"tags = {{ {', '.join(pairs)} }}\n"


def _key(text: str) -> str:
    return text if _BARE.fullmatch(text) else _text(text)


def _value(value: Setting) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_value(each) for each in value)}]"
    if isinstance(value, str):
        return _text(value)
    return json.dumps(value)


def _text(text: str) -> str:
    """Quote a text for TOML: as in JSON, with DEL escaped as well."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
