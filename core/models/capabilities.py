"""Detect what a model can do, each fact with its source. Pure.

The strongest source decides: ``show``, then ``tags``, then the registry, then the
name, then a default. A word of the name can grant what the registry denies. The
user's configuration overrides them all; it is applied when the facts are read, so
that removing it restores the detected values.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import msgspec

from herdbook.core.models.registry import (
    DEFAULT_CONTEXT,
    KnownModel,
    ModelRegistry,
    words_of,
)
from herdbook.events.facts import (
    CapabilitiesDetected,
    Capability,
    FactSource,
    Setting,
)

SERVER_WORDS = ("completion", "tools", "vision", "thinking", "insert", "embedding")
"""The capabilities that are always reported. The server has more, which are reported
only if a model has them."""

_NAME_WORDS = {
    "embedding": frozenset({"embed", "embedding", "embeddings"}),
    "vision": frozenset({"vision", "vl", "llava"}),
}


class ModelMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """The server's facts about a model; None is unknown.

    Attributes:
        digest: Digest of the manifest.
        weights: Digest of the weights.
        family: The architecture.
        parameter_count: Number of parameters.
        quantization: The quantization, such as ``Q4_K_M``.
        shown: The capabilities in ``/api/show``.
        listed: The capabilities in ``/api/tags``.
        shown_context: Trained context in ``/api/show``, tokens.
        listed_context: Trained context in ``/api/tags``, tokens.
        evidence: Capabilities by evidence in ``/api/show``, if it lists none: by
            name, the field that shows it.
        num_ctx: The model's own parameter ``num_ctx``.
        temperature: The model's own parameter ``temperature``.
        parameters: All of the model's own parameters.
        cloud: Whether it is a cloud model.
    """

    digest: str | None = None
    weights: str | None = None
    family: str | None = None
    parameter_count: int | None = None
    quantization: str | None = None
    shown: Collection[str] | None = None
    listed: Collection[str] | None = None
    evidence: Mapping[str, str] = {}
    shown_context: int | None = None
    listed_context: int | None = None
    num_ctx: int | None = None
    temperature: float | None = None
    parameters: Mapping[str, Setting] = {}
    cloud: bool = False


class _Number(NamedTuple):
    value: float
    source: FactSource


def detect(
    name: str, observed: ModelMetadata, registry: ModelRegistry
) -> CapabilitiesDetected:
    """Return the facts about a model, each with its source.

    Args:
        name: The model's name.
        observed: The server's facts; all empty for an absent model.
        registry: The expected facts.
    """
    known = registry.find(name)
    context = _context(observed, known)
    temperature = _temperature(observed, known)
    return CapabilitiesDetected(
        digest=observed.digest,
        weights=observed.weights,
        family=observed.family or (str(known.family) if known else None),
        parameter_count=observed.parameter_count or _expected_count(name, known),
        quantization=observed.quantization,
        context_trained=int(context.value),
        context_source=context.source,
        context_default=observed.num_ctx,
        temperature=temperature.value if temperature else None,
        temperature_source=temperature.source if temperature else None,
        parameters=dict(observed.parameters),
        capabilities=_capabilities(name, observed, known),
        ranks={role.value: rank for role, rank in known.ranks.items()} if known else {},
    )


def _capabilities(
    name: str, observed: ModelMetadata, known: KnownModel | None
) -> dict[str, Capability]:
    shown, listed = ({*(words or ())} for words in (observed.shown, observed.listed))
    observed = msgspec.structs.replace(observed, shown=shown, listed=listed)
    further = (shown | listed) - {*SERVER_WORDS}
    found = {
        word: _capability(word, name, observed, known)
        for word in (*SERVER_WORDS, *sorted(further))
    }
    if found["embedding"].source is FactSource.NAME:
        found["completion"] = msgspec.structs.replace(found["embedding"], value=False)
    found["json"] = _json(found["completion"], observed, known)
    found["coding"] = _coding(name, found["insert"], known)
    return found


def _capability(
    word: str, name: str, observed: ModelMetadata, known: KnownModel | None
) -> Capability:
    # The server omits an empty list, so an empty list means unknown.
    if observed.shown:
        value = word in observed.shown
        differs = observed.listed and (word in observed.listed) is not value
        evidence = f"tags: {'no' if value else 'yes'}" if differs else ""
        return Capability(value=value, source=FactSource.SHOW, evidence=evidence)
    if observed.listed:
        return Capability(value=word in observed.listed, source=FactSource.TAGS)
    if word in observed.evidence:
        evidence = observed.evidence[word]
        return Capability(value=True, source=FactSource.SHOW, evidence=evidence)
    if word == "completion" and "embedding" in observed.evidence:
        return Capability(value=False, source=FactSource.SHOW, evidence="embedding")
    expected = _expected(word, known)
    if expected is not None and expected.value:
        return expected
    # A name can start like a known one, and its other words make it a different model.
    in_name = next((w for w in words_of(name) if w in _NAME_WORDS.get(word, ())), None)
    if in_name is not None:
        return Capability(value=True, source=FactSource.NAME, evidence=in_name)
    default = Capability(value=word == "completion", source=FactSource.DEFAULT)
    return expected or default


def _expected(word: str, known: KnownModel | None) -> Capability | None:
    """Return the registry's fact; None if its catalogue does not have it."""
    if known is None or not known.has_fact(word):
        return None
    return Capability(
        value=word in known.capabilities.names,
        source=FactSource.REGISTRY,
        evidence=known.name,
    )


def _json(
    completion: Capability, observed: ModelMetadata, known: KnownModel | None
) -> Capability:
    if observed.cloud:
        return Capability(
            value=False, source=FactSource.DEFAULT, evidence="a cloud model"
        )
    from_server = completion.source in {FactSource.SHOW, FactSource.TAGS}
    if completion.value and not from_server:
        expected = _expected("json_mode", known)
        if expected is not None:
            return expected
    return Capability(
        value=completion.value,
        source=completion.source,
        evidence="every local completion model" if completion.value else "",
    )


def _coding(name: str, insert: Capability, known: KnownModel | None) -> Capability:
    expected = _expected("coding", known)
    if expected is not None and expected.value:
        return expected
    word = next((word for word in words_of(name) if _is_of_code(word)), None)
    if expected is None and insert.value:
        return Capability(value=True, source=insert.source, evidence="insert")
    if word is not None:
        return Capability(value=True, source=FactSource.NAME, evidence=word)
    return expected or Capability(value=False, source=FactSource.DEFAULT)


def _is_of_code(word: str) -> bool:
    """Return whether a word of a name means code: coder, codestral, starcoder."""
    return word.startswith("code") or word.endswith("coder") or word == "devstral"


def _context(observed: ModelMetadata, known: KnownModel | None) -> _Number:
    if observed.shown_context:
        return _Number(observed.shown_context, FactSource.SHOW)
    if observed.listed_context:
        return _Number(observed.listed_context, FactSource.TAGS)
    if known is not None and known.has_fact("context"):
        return _Number(known.context, FactSource.REGISTRY)
    return _Number(DEFAULT_CONTEXT, FactSource.DEFAULT)


def _temperature(observed: ModelMetadata, known: KnownModel | None) -> _Number | None:
    if observed.temperature is not None:
        return _Number(observed.temperature, FactSource.SHOW)
    if known is not None and known.temperature is not None:
        return _Number(known.temperature, FactSource.REGISTRY)
    return None


def _expected_count(name: str, known: KnownModel | None) -> int | None:
    """Return the catalogue's number of parameters, if it is for exactly this name."""
    about = known is not None and known.is_about(name)
    return known.parameter_count if known is not None and about else None
