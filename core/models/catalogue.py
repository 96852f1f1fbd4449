"""The catalogue: what is known of models before they are there, read from TOML.

A catalogue has three tables. ``[sources.<id>]`` says where facts come from and
when they were seen. ``[models."<name>"]`` holds the facts of a model; ``source``
names where they come from, ``sources.<fact>`` where a single one does. ``[roles]``
lists the models that are good for a role, the best first. It is read strictly and
as a whole: a mistake is an error that names file, model and key, and nothing of
the file is used.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, TypeAlias, TypeVar

import msgspec

from herdbook.core.errors import InvalidCatalogueError
from herdbook.core.models.toml_file import read_toml
from herdbook.projections.roles import ModelRole

T = TypeVar("T")

_Positive: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]
_Text: TypeAlias = Annotated[str, msgspec.Meta(min_length=1)]
_Date: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^\d{4}(-\d\d){0,2}$")]


class Source(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
):
    """Where a fact comes from.

    Attributes:
        title: What it is, in a few words.
        date: When it was published or read: a year, month or day, ISO 8601.
        url: Where it can be read; empty where it cannot.
        verified: Whether somebody looked at it; False for what is held to be so.
    """

    title: _Text
    date: _Date | None = None
    url: str = ""
    verified: bool = True


class ModelFacts(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
):
    """What one catalogue says of one model; None where it says nothing.

    Attributes:
        family: Whose descent it is, such as ``llama``.
        context: Tokens that it was trained for.
        temperature: The recommended one.
        tools: Whether it calls tools.
        vision: Whether it sees images.
        thinking: Whether it thinks before it answers.
        coding: Whether it was made for code.
        insert: Whether it fills in the middle of a text.
        embedding: Whether it makes embeddings, and nothing else.
        json_mode: Whether it answers in JSON on demand.
        pull: What to ask the registry for.
        parameter_count: Number of parameters of what ``pull`` names.
        download_bytes: Size of what ``pull`` names, bytes.
        memory_bytes: Memory that it is said to need, bytes.
        note: What else there is to say, such as sources that disagree.
    """

    family: _Text | None = None
    context: _Positive | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    tools: bool | None = None
    vision: bool | None = None
    thinking: bool | None = None
    coding: bool | None = None
    insert: bool | None = None
    embedding: bool | None = None
    json_mode: bool | None = None
    pull: _Text | None = None
    parameter_count: _Positive | None = None
    download_bytes: _Positive | None = None
    memory_bytes: _Positive | None = None
    note: _Text | None = None


class _Entry(ModelFacts, frozen=True, kw_only=True, omit_defaults=True):
    source: str | None = None
    sources: dict[str, str] = {}


class Entry(msgspec.Struct, frozen=True):
    """The facts of a model, each with its source.

    Attributes:
        facts: The facts.
        sources: By fact, for every fact that is there.
    """

    facts: ModelFacts
    sources: dict[str, Source]

    def beneath(self, upper: Entry) -> Entry:
        """Return this entry with another laid on top."""
        facts = {**_told(self.facts), **_told(upper.facts)}
        return Entry(
            msgspec.convert(facts, ModelFacts), {**self.sources, **upper.sources}
        )


class Catalogue(msgspec.Struct, frozen=True):
    """A catalogue that was read, or several laid on one another.

    Attributes:
        origin: Where it was read.
        entries: By the model's key (see ``key_of``).
        roles: By role, the keys of the models that are good for it, best first.
    """

    origin: str
    entries: dict[str, Entry]
    roles: dict[ModelRole, tuple[str, ...]]

    def beneath(self, upper: Catalogue) -> Catalogue:
        """Return this catalogue with another laid on top.

        Facts of the upper one replace ours; its models go first in its roles.
        """
        entries = dict(self.entries)
        for key, entry in upper.entries.items():
            entries[key] = entries[key].beneath(entry) if key in entries else entry
        roles = {
            role: tuple(
                dict.fromkeys((*upper.roles.get(role, ()), *self.roles.get(role, ())))
            )
            for role in ModelRole
        }
        return Catalogue(upper.origin, entries, roles)


def key_of(name: str) -> str:
    """Return what a name is looked up by: lower case, without ``:latest``."""
    return name.strip().lower().removesuffix(":latest")


def shipped() -> Catalogue:
    """Return the catalogue that comes with Herdbook."""
    text = files(__package__).joinpath("catalogue.toml").read_text("utf-8")
    return parse(tomllib.loads(text), origin="catalogue.toml")


def read(path: Path) -> Catalogue:
    """Return the catalogue in a file.

    Raises:
        InvalidCatalogueError: It cannot be read, or a part of it is not valid.
    """
    data = read_toml(path, "catalogue", InvalidCatalogueError)
    return parse(data, origin=str(path))


def parse(data: Mapping[str, object], *, origin: str) -> Catalogue:
    """Return the catalogue that the tables of a TOML document are.

    Args:
        data: The document.
        origin: Where it was read, for errors and as the source of facts that
            name none.

    Raises:
        InvalidCatalogueError: A part of it is not valid.
    """
    extra = sorted(set(data) - {"sources", "models", "roles"})
    if extra:
        raise _invalid(
            origin, "", extra[0], "no such table; known are sources, models and roles"
        )
    plain = msgspec.to_builtins(dict(data))  # dates become text
    sources = {
        name: _convert(table, Source, origin, f"source {name}")
        for name, table in _tables(plain, "sources", origin)
    }
    entries: dict[str, Entry] = {}
    for name, table in _tables(plain, "models", origin):
        if key_of(name) in entries:
            raise _invalid(origin, f"model {name}", "", "it stands there twice")
        entries[key_of(name)] = _entry(name, table, sources, origin)
    return Catalogue(origin, entries, _roles(plain, origin))


def _entry(
    name: str, table: object, sources: Mapping[str, Source], origin: str
) -> Entry:
    where = f"model {name}"
    entry = _convert(table, _Entry, origin, where)
    told = {f: v for f, v in _told(entry).items() if f not in {"source", "sources"}}
    named = {fact: entry.sources.get(fact, entry.source) for fact in told}
    for fact, source in entry.sources.items():
        if fact not in told:
            raise _invalid(origin, where, f"sources.{fact}", "no such fact is given")
        if source not in sources:
            raise _invalid(origin, where, f"sources.{fact}", f"no source {source}")
    if entry.source is not None and entry.source not in sources:
        raise _invalid(origin, where, "source", f"no source {entry.source}")
    own = Source(title=f"catalogue {origin}")
    return Entry(
        msgspec.convert(told, ModelFacts),
        {f: own if source is None else sources[source] for f, source in named.items()},
    )


def _roles(plain: object, origin: str) -> dict[ModelRole, tuple[str, ...]]:
    roles: dict[ModelRole, tuple[str, ...]] = {}
    for name, value in _tables(plain, "roles", origin):
        role = ModelRole.parse(name)
        if role is None:
            known = ", ".join(ModelRole)
            raise _invalid(origin, "roles", name, f"no such role; known are {known}")
        models = _convert(value, tuple[str, ...], origin, f"role {name}")
        roles[role] = tuple(key_of(model) for model in models)
    return roles


def _tables(plain: object, key: str, origin: str) -> Iterator[tuple[str, object]]:
    tables = _convert(plain, dict[str, object], origin, "").get(key, {})
    yield from _convert(tables, dict[str, object], origin, key).items()


def _told(facts: ModelFacts) -> dict[str, object]:
    told: dict[str, object] = msgspec.to_builtins(facts)
    return told


def _convert(value: object, type_: type[T], origin: str, where: str) -> T:
    try:
        return msgspec.convert(value, type_)
    except msgspec.ValidationError as error:
        text, _, key = re.sub(r"`| \| null", "", str(error)).partition(" - at $")
        unknown = re.fullmatch(r"Object contains unknown field (.+)", text)
        if unknown:
            raise _invalid(origin, where, unknown[1], "no such key") from error
        reason = text[:1].lower() + text[1:]
        raise _invalid(origin, where, key.lstrip("."), reason) from error


def _invalid(origin: str, where: str, key: str, reason: str) -> InvalidCatalogueError:
    place = ", ".join(part for part in (where, f"key {key}" if key else "") if part)
    return InvalidCatalogueError(
        f"catalogue {origin}", f"is not valid: {place}: {reason}"
    )
