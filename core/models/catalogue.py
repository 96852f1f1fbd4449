"""Catalogues: TOML files with facts about models before they are on the server.

A catalogue has three tables. ``[sources.<id>]`` describes a source of facts and its
date. ``[models."<name>"]`` has the facts about a model; ``source`` names the source
of all of them, ``sources.<fact>`` that of a single fact. ``[roles]`` lists the models
that fit a role, best first. Parsing is strict: a mistake is an error that names file,
model and key, and nothing from the file is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, TypeAlias, TypeVar

import msgspec

from herdbook.core.errors import InvalidCatalogueError
from herdbook.core.errors.suggestions import did_you_mean
from herdbook.core.errors.validation import violation
from herdbook.core.models.toml_file import read_toml
from herdbook.projections.roles import ModelRole

T = TypeVar("T")

_TABLES = ("sources", "models", "roles")

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
    """The source of a fact.

    Attributes:
        title: A short description.
        date: When it was published or read: a year, month or day, ISO 8601.
        url: The URL; empty if there is none.
        verified: Whether the source was read; False for assumptions.
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
    """The facts of one catalogue about one model; None for facts it does not have.

    Attributes:
        family: The family, such as ``llama``.
        context: Trained context, tokens.
        temperature: The recommended temperature.
        tools: Whether it calls tools.
        vision: Whether it reads images.
        thinking: Whether it thinks before it answers.
        coding: Whether it is made for code.
        insert: Whether it fills in the middle of a text.
        embedding: Whether it is an embedding model.
        json_mode: Whether it answers in JSON on demand.
        pull: The name to pull.
        parameter_count: Number of parameters of the ``pull`` name.
        download_bytes: Size of the ``pull`` name, bytes.
        tag_bytes: Sizes of other tags, bytes.
        memory_bytes: Memory needed according to the source, bytes.
        note: A remark, such as sources that disagree.
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
    tag_bytes: dict[_Text, _Positive] | None = None
    memory_bytes: _Positive | None = None
    note: _Text | None = None


class _Entry(ModelFacts, frozen=True, kw_only=True, omit_defaults=True):
    source: str | None = None
    sources: dict[str, str] = {}


class Entry(msgspec.Struct, frozen=True):
    """The facts about a model, each with its source.

    Attributes:
        facts: The facts.
        sources: The source of each fact, by the fact's name.
    """

    facts: ModelFacts
    sources: dict[str, Source]

    def overridden_by(self, upper: Entry) -> Entry:
        """Return this entry with the facts of another one replacing its own."""
        facts = {**_given(self.facts), **_given(upper.facts)}
        return Entry(
            msgspec.convert(facts, ModelFacts), {**self.sources, **upper.sources}
        )


class Catalogue(msgspec.Struct, frozen=True):
    """A catalogue, or several combined.

    Attributes:
        origin: The file it was read from.
        entries: The entries by the model's key (see ``key_of``).
        roles: By role, the keys of the models that fit it, best first.
    """

    origin: str
    entries: dict[str, Entry]
    roles: dict[ModelRole, tuple[str, ...]]

    def overridden_by(self, upper: Catalogue) -> Catalogue:
        """Return this catalogue, overridden by another one.

        Facts of the other one replace these; its models come first in its roles.
        """
        entries = dict(self.entries)
        for key, entry in upper.entries.items():
            entries[key] = (
                entries[key].overridden_by(entry) if key in entries else entry
            )
        roles = {
            role: tuple(
                dict.fromkeys((*upper.roles.get(role, ()), *self.roles.get(role, ())))
            )
            for role in ModelRole
        }
        return Catalogue(upper.origin, entries, roles)


def key_of(name: str) -> str:
    """Return the lookup key of a name: lower case, without ``:latest``."""
    return name.strip().lower().removesuffix(":latest")


def shipped() -> Catalogue:
    """Return the catalogue that is part of Herdbook."""
    file = Path(__file__).with_name("catalogue.toml")
    data = read_toml(file, "catalogue", InvalidCatalogueError)
    return parse(data, origin=file.name)


def read(path: Path) -> Catalogue:
    """Read a catalogue from a file.

    Raises:
        InvalidCatalogueError: The file cannot be read, or is not valid.
    """
    data = read_toml(path, "catalogue", InvalidCatalogueError)
    return parse(data, origin=str(path))


def parse(data: Mapping[str, object], *, origin: str) -> Catalogue:
    """Parse a catalogue from the tables of a TOML document.

    Args:
        data: The document.
        origin: The file, for errors and as the source of facts without one.

    Raises:
        InvalidCatalogueError: The document is not valid.
    """
    extra = sorted(set(data) - {*_TABLES})
    if extra:
        near = did_you_mean(extra[0], _TABLES)
        raise InvalidCatalogueError(
            f"catalogue {origin}",
            f"is not valid: unknown table [{extra[0]}]",
            f"{near}The tables are {', '.join(_TABLES)}",
        )
    plain = msgspec.to_builtins(dict(data))  # dates become text
    sources = {
        name: _convert(table, Source, origin, f"source {name}")
        for name, table in _tables(plain, "sources", origin)
    }
    entries: dict[str, Entry] = {}
    for name, table in _tables(plain, "models", origin):
        if key_of(name) in entries:
            raise _invalid(origin, f"model {name}", "", "it is listed twice")
        entries[key_of(name)] = _entry(name, table, sources, origin)
    return Catalogue(origin, entries, _roles(plain, origin))


def _entry(
    name: str, table: object, sources: Mapping[str, Source], origin: str
) -> Entry:
    where = f"model {name}"
    entry = _convert(table, _Entry, origin, where)
    given = {f: v for f, v in _given(entry).items() if f not in {"source", "sources"}}
    named = {fact: entry.sources.get(fact, entry.source) for fact in given}
    for fact, source in entry.sources.items():
        if fact not in given:
            raise _invalid(
                origin, where, f"sources.{fact}", "the model has no such fact"
            )
        if source not in sources:
            raise _invalid(origin, where, f"sources.{fact}", f"unknown source {source}")
    if entry.source is not None and entry.source not in sources:
        raise _invalid(origin, where, "source", f"unknown source {entry.source}")
    own = Source(title=f"catalogue {origin}")
    return Entry(
        msgspec.convert(given, ModelFacts),
        {f: own if source is None else sources[source] for f, source in named.items()},
    )


def _roles(plain: object, origin: str) -> dict[ModelRole, tuple[str, ...]]:
    roles: dict[ModelRole, tuple[str, ...]] = {}
    for name, value in _tables(plain, "roles", origin):
        role = ModelRole.parse(name)
        if role is None:
            known = ", ".join(ModelRole)
            raise _invalid(
                origin, "roles", name, f"unknown role; the roles are {known}"
            )
        models = _convert(value, tuple[str, ...], origin, f"role {name}")
        roles[role] = tuple(key_of(model) for model in models)
    return roles


def _tables(plain: object, key: str, origin: str) -> Iterator[tuple[str, object]]:
    tables = _convert(plain, dict[str, object], origin, "").get(key, {})
    yield from _convert(tables, dict[str, object], origin, key).items()


def _given(facts: ModelFacts) -> dict[str, object]:
    given: dict[str, object] = msgspec.to_builtins(facts)
    return given


def _convert(value: object, type_: type[T], origin: str, where: str) -> T:
    try:
        return msgspec.convert(value, type_)
    except msgspec.ValidationError as error:
        found = violation(str(error).replace(" | null", ""))
        reason = found.problem
        if reason == "is unknown":
            known = getattr(type_, "__struct_fields__", ())
            near = did_you_mean(found.field, known).strip()
            reason = f"unknown key. {near}" if near else "unknown key"
        raise _invalid(origin, where, found.field, reason) from error


def _invalid(origin: str, where: str, key: str, reason: str) -> InvalidCatalogueError:
    place = ", ".join(part for part in (where, f"key {key}" if key else "") if part)
    place = f" in {place}" if place else ""
    return InvalidCatalogueError(
        f"catalogue {origin}", f"is not valid{place}: {reason}"
    )
