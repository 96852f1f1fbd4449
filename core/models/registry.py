"""The registry of known models: their capabilities, and the roles they fit.

It is immutable; adding a catalogue returns another registry. Its facts are
expectations, which the server's facts about a model replace.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from enum import StrEnum
from functools import cached_property
from pathlib import Path

import msgspec

from herdbook.core.errors import InvalidCatalogueError, UnknownRoleError
from herdbook.core.models import catalogue
from herdbook.core.models.catalogue import Catalogue, Source, key_of
from herdbook.events.facts import FactSource
from herdbook.projections import roles
from herdbook.projections.roles import ModelRole

DEFAULT_CONTEXT = 4096
"""Context assumed for an unknown model, tokens."""


class ModelFamily(StrEnum):
    """The family of a model. A catalogue can name others, as plain text."""

    CODELLAMA = "codellama"
    DEEPSEEK = "deepseek"
    GEMMA = "gemma"
    GLM = "glm"
    GPT_OSS = "gpt-oss"
    LLAMA = "llama"
    LLAVA = "llava"
    MINILM = "minilm"
    MISTRAL = "mistral"
    MOONDREAM = "moondream"
    MXBAI = "mxbai"
    NEMOTRON = "nemotron"
    NOMIC = "nomic"
    PHI = "phi"
    QWEN = "qwen"


class ModelCapabilities(msgspec.Struct, frozen=True, kw_only=True):
    """The expected capabilities of a model.

    Attributes:
        context: Trained context, tokens.
        temperature: The recommended temperature, if known.
        completion: Whether it completes text.
        tools: Whether it calls tools.
        vision: Whether it reads images.
        thinking: Whether it thinks before it answers.
        coding: Whether it is made for code.
        insert: Whether it fills in the middle of a text.
        embedding: Whether it is an embedding model.
        json_mode: Whether it answers in JSON on demand.
        source: ``registry``; ``default`` for an unknown model.
    """

    context: int = DEFAULT_CONTEXT
    temperature: float | None = None
    completion: bool = True
    tools: bool = False
    vision: bool = False
    thinking: bool = False
    coding: bool = False
    insert: bool = False
    embedding: bool = False
    json_mode: bool = True
    source: FactSource = FactSource.DEFAULT

    @property
    def names(self) -> frozenset[str]:
        """The names of the capabilities that it has."""
        return frozenset(
            name
            for name in self.__struct_fields__
            if name not in {"context", "temperature", "source"} and getattr(self, name)
        )


class KnownModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model in the registry.

    Attributes:
        name: The name in the catalogue.
        family: The family, if known.
        capabilities: The expected capabilities.
        pull: The name to pull from Ollama's library; None if no tag is known.
        parameter_count: Number of parameters of the ``pull`` name.
        download_bytes: Size of the ``pull`` name, bytes.
        tag_bytes: Sizes of other tags, bytes.
        memory_bytes: Memory needed according to the source, bytes.
        ranks: By role, the rank among the models that fit it, from 1.
        sources: By fact, its source; a fact without one is a default.
        note: A remark.
    """

    name: str
    family: ModelFamily | str | None = None
    capabilities: ModelCapabilities
    pull: str | None = None
    parameter_count: int | None = None
    download_bytes: int | None = None
    tag_bytes: dict[str, int] = {}
    memory_bytes: int | None = None
    ranks: dict[ModelRole, int] = {}
    sources: dict[str, Source] = {}
    note: str = ""

    @property
    def context(self) -> int:
        """Trained context, tokens."""
        return self.capabilities.context

    @property
    def temperature(self) -> float | None:
        """The recommended temperature, if known."""
        return self.capabilities.temperature

    def has_fact(self, fact: str) -> bool:
        """Return whether the catalogue has this fact; else it is a default."""
        return fact in self.sources or (
            fact == "completion" and "embedding" in self.sources
        )

    def is_about(self, name: str) -> bool:
        """Return whether the facts about ``pull`` apply to a name."""
        return key_of(name) in {self.name, key_of(self.pull or self.name)}

    def download_of(self, name: str) -> tuple[int, Source] | None:
        """Return the size of a name of this model, bytes, and the source of it.

        None if the catalogue does not have that tag.
        """
        if self.is_about(name) and self.download_bytes is not None:
            return self.download_bytes, self.sources["download_bytes"]
        base, _, tag = key_of(name).partition(":")
        if base == self.name and tag in self.tag_bytes:
            return self.tag_bytes[tag], self.sources["tag_bytes"]
        return None

    def lacks(self, role: ModelRole) -> str | None:
        """Return what the model lacks for a role, as text; None if it fits."""
        return roles.lacking(
            role,
            can=self.capabilities.names,
            parameter_count=self.parameter_count,
            context=self.context,
        )


class Suggestion(msgspec.Struct, frozen=True, kw_only=True):
    """A model that is worth pulling for a role.

    Attributes:
        pull: The name to pull from Ollama's library.
        role: The role.
        model: The known model.
        reason: Why it is suggested, as text.
    """

    pull: str
    role: ModelRole
    model: KnownModel
    reason: str


def parse_role(role: ModelRole | str) -> ModelRole:
    """Return the role of a name, in any case and spelling.

    Raises:
        UnknownRoleError: There is no role of that name.
    """
    found = ModelRole.parse(role)
    if found is None:
        raise UnknownRoleError(role, known=tuple(ModelRole))
    return found


class ModelRegistry:
    """The models that are known before they are on the server.

    The shipped catalogue is read when a model is first looked up: most commands meet no
    new model, and reading it takes 3% of the time of ``herdbook ls``.

    Args:
        source: The catalogue; None for the shipped one.
    """

    def __init__(self, source: Catalogue | None = None) -> None:
        self._source = source

    @cached_property
    def _catalogue(self) -> Catalogue:
        return catalogue.shipped() if self._source is None else self._source

    @cached_property
    def _models(self) -> dict[str, KnownModel]:
        known = {k: _known(k, entry) for k, entry in self._catalogue.entries.items()}
        ranks = _ranks(self._catalogue, known)
        return {
            key: msgspec.structs.replace(model, ranks=ranks.get(key, {}))
            for key, model in known.items()
        }

    @cached_property
    def _by_words(self) -> dict[tuple[str, ...], KnownModel]:
        return {
            words_of(key): model
            for key, model in self._models.items()
            if "/" not in key
        }

    def __iter__(self) -> Iterator[KnownModel]:
        return iter(self._models.values())

    def __len__(self) -> int:
        return len(self._models)

    def with_catalogue(
        self, source: Path | str | Mapping[str, object]
    ) -> ModelRegistry:
        """Return a registry in which a catalogue overrides this one's facts.

        Args:
            source: A TOML file, or the tables of a TOML document.

        Raises:
            InvalidCatalogueError: The catalogue is not valid.
        """
        if isinstance(source, Mapping):
            upper = catalogue.parse(source, origin="data")
        else:
            upper = catalogue.read(Path(source))
        laid = ModelRegistry(self._catalogue.overridden_by(upper))
        laid._check(upper)
        return laid

    def download_of(self, name: str) -> tuple[int, Source] | None:
        """Return the size of a model, bytes, and the source of it; None if unknown."""
        known = self.find(name)
        return None if known is None else known.download_of(name)

    def find(self, name: str) -> KnownModel | None:
        """Return the known model that matches a name; None for an unknown model.

        The exact name is tried first, then the name without its tag, then the longest
        known name whose words this name starts with. Case does not matter. Host and
        namespace only matter if a catalogue names them.
        """
        full = key_of(name)
        bare = full.rpartition("/")[2]
        for spelling in (full, bare):
            model = self._models.get(spelling) or self._models.get(_untagged(spelling))
            if model is not None:
                return model
        words = words_of(bare)
        prefixes = (words[:count] for count in range(len(words), 0, -1))
        found = (self._by_words.get(prefix) for prefix in prefixes)
        return next((model for model in found if model is not None), None)

    def capabilities(self, name: str) -> ModelCapabilities:
        """Return the expected capabilities; defaults for an unknown model."""
        model = self.find(name)
        return ModelCapabilities() if model is None else model.capabilities

    def for_role(self, role: ModelRole | str) -> tuple[KnownModel, ...]:
        """Return the known models that fit a role, best first.

        Raises:
            UnknownRoleError: There is no role of that name.
        """
        wanted = parse_role(role)
        last = len(self._models) + 1
        fit = (model for model in self if model.lacks(wanted) is None)
        return tuple(sorted(fit, key=lambda m: (m.ranks.get(wanted, last), m.name)))

    def suggest(
        self,
        role: ModelRole | str,
        *,
        present: Collection[str] = (),
        used: Iterable[str] = (),
        memory_bytes: int | None = None,
    ) -> tuple[Suggestion, ...]:
        """Return the models that are worth pulling for a role, best first.

        Models that were used before come first. Only ranked models with a verified tag
        in Ollama's library are suggested. With a memory limit, models of unknown size
        are left out.

        Args:
            role: The role.
            present: Names of the models that are on the server.
            used: Names of the models that were used before, the last used first.
            memory_bytes: Maximum memory of a model, bytes; None for no limit.

        Raises:
            UnknownRoleError: There is no role of that name.
        """
        wanted = parse_role(role)
        there = {id(self.find(name)) for name in present}
        places: dict[int, int] = {}
        for place, name in enumerate(used):
            places.setdefault(id(self.find(name)), place)
        models = self.for_role(wanted)
        return tuple(
            Suggestion(
                pull=model.pull,
                role=wanted,
                model=model,
                reason=f"used before; {reason}" if id(model) in places else reason,
            )
            for model in sorted(
                models, key=lambda model: places.get(id(model), len(places))
            )
            if id(model) not in there
            and model.pull is not None
            and model.sources["pull"].verified
            and (reason := _reason(model, wanted, memory_bytes))
        )

    def _check(self, upper: Catalogue) -> None:
        """Reject a catalogue that ranks a model for a role that it does not fit."""
        for role, keys in upper.roles.items():
            for key in keys:
                model = self._models.get(key)
                lack = "no such model" if model is None else model.lacks(role)
                if lack is not None:
                    raise InvalidCatalogueError(
                        f"catalogue {upper.origin}",
                        f"is not valid in role {role}, model {key}: {lack}",
                    )


def _ranks(
    source: Catalogue, known: Mapping[str, KnownModel]
) -> dict[str, dict[ModelRole, int]]:
    """Return the ranks by model, without roles that it no longer fits."""
    ranks: dict[str, dict[ModelRole, int]] = {}
    for role, keys in source.roles.items():
        fit = [key for key in keys if key in known and known[key].lacks(role) is None]
        for rank, key in enumerate(fit, start=1):
            ranks.setdefault(key, {})[role] = rank
    return ranks


def _known(key: str, entry: catalogue.Entry) -> KnownModel:
    facts = entry.facts
    embedding = bool(facts.embedding)
    return KnownModel(
        name=key,
        family=_family(facts.family),
        capabilities=ModelCapabilities(
            context=facts.context or DEFAULT_CONTEXT,
            temperature=facts.temperature,
            completion=not embedding,
            tools=bool(facts.tools),
            vision=bool(facts.vision),
            thinking=bool(facts.thinking),
            coding=bool(facts.coding),
            insert=bool(facts.insert),
            embedding=embedding,
            json_mode=not embedding if facts.json_mode is None else facts.json_mode,
            source=FactSource.REGISTRY,
        ),
        pull=facts.pull,
        parameter_count=facts.parameter_count,
        download_bytes=facts.download_bytes,
        tag_bytes=facts.tag_bytes or {},
        memory_bytes=facts.memory_bytes,
        sources=entry.sources,
        note=facts.note or "",
    )


def _family(name: str | None) -> ModelFamily | str | None:
    known = {family.value: family for family in ModelFamily}
    return None if name is None else known.get(name.lower(), name.lower())


def _reason(model: KnownModel, role: ModelRole, memory_bytes: int | None) -> str:
    """Return why a model is suggested; empty if it is not."""
    rank = model.ranks.get(role)
    needed = model.memory_bytes or model.download_bytes
    if rank is None:
        return ""
    place = "first" if rank == 1 else f"rank {rank}"
    words = f"{place} for the {role.replace('_', ' ')} role in the catalogue"
    if memory_bytes is None:
        return words
    if needed is None or needed > memory_bytes:
        return ""
    return (
        f"{words}; needs at least {needed / 1e9:.1f} GB of {memory_bytes / 1e9:.1f} GB"
    )


def _untagged(name: str) -> str:
    """Return a name without its tag; keep the port of a host."""
    head, slash, last = name.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}"


_WORD = re.compile(r"[a-z]+|[0-9]+(?:\.[0-9]+)*")


def words_of(name: str) -> tuple[str, ...]:
    """Return the words of a name in lower case: letters, and numbers with points.

    ``qwen2.5-coder:7b`` is ``qwen``, ``2.5``, ``coder``, ``7``, ``b``. A version is
    one word, so that 3.10 does not start with 3.1.
    """
    return tuple(_WORD.findall(name.lower()))
