"""Read the simulated models that the package contains.

Invariant: the same name always has the same content and digests, so that two
sandboxes agree about every model and tests can name digests.
"""

from __future__ import annotations

import hashlib
import tomllib
from functools import cache
from importlib.resources import files

import msgspec

from herdbook.sandbox.models.artifacts import (
    Contents,
    Package,
    Weights,
    config_of,
    pack,
)
from herdbook.sandbox.request_bodies import Json


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One model of the catalogue.

    Attributes:
        made: Seconds by which it is newer than the oldest model of its store.
    """

    name: str
    weights: str
    template: str
    system: str = ""
    license: str = ""
    parameters: Json = {}
    made: float = 0.0


class Catalogue(msgspec.Struct, frozen=True, kw_only=True):
    """All simulated models, by name.

    Attributes:
        herd: Models of the recordings.
        library: Common models.
        made: Seconds by which each model of ``herd`` is newer than the oldest.
        sets: Named lists of models of the library.
    """

    herd: dict[str, Package]
    library: dict[str, Package]
    made: dict[str, float]
    sets: dict[str, tuple[str, ...]]


class _File(msgspec.Struct, frozen=True, kw_only=True):
    templates: dict[str, str]
    weights: dict[str, Json]
    herd: tuple[Entry, ...]
    library: tuple[Entry, ...]
    sets: dict[str, tuple[str, ...]]


@cache
def read_catalogue() -> Catalogue:
    """Read the catalogue next to this module."""
    text = (
        files("herdbook.sandbox.models").joinpath("catalogue.toml").read_text("utf-8")
    )
    read = msgspec.convert(tomllib.loads(text), _File)
    weights = {key: _weights(key, facts) for key, facts in read.weights.items()}

    def packages(entries: tuple[Entry, ...]) -> dict[str, Package]:
        return {
            entry.name: _package(entry, weights, read.templates) for entry in entries
        }

    return Catalogue(
        herd=packages(read.herd),
        library=packages(read.library),
        made={entry.name: entry.made for entry in read.herd},
        sets=read.sets,
    )


def _weights(key: str, facts: Json) -> Weights:
    invented = hashlib.sha256(f"weights of {key}".encode()).hexdigest()
    return msgspec.convert({"digest": f"sha256:{invented}", **facts}, Weights)


def _package(
    entry: Entry, weights: dict[str, Weights], templates: dict[str, str]
) -> Package:
    contents = Contents(
        config=config_of(weights[entry.weights]),
        weights=weights[entry.weights],
        template=templates[entry.template],
        system=entry.system,
        license=entry.license,
        parameters=entry.parameters,
    )
    return pack(contents)
