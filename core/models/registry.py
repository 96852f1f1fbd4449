"""The registry: which models are known, what they can do, what they are good for.

It is immutable; a catalogue laid on top gives another registry. What it says are
expectations: what the server says of a model replaces them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from enum import StrEnum
from pathlib import Path

import msgspec

from herdbook.core.errors import InvalidCatalogueError, UnknownRoleError
from herdbook.core.models import catalogue
from herdbook.core.models.catalogue import Catalogue, Source, key_of
from herdbook.events.facts import FactSource
from herdbook.projections import roles
from herdbook.projections.roles import ModelRole

DEFAULT_CONTEXT = 4096
"""Tokens that a model is taken to have where nothing is known of it."""


class ModelFamily(StrEnum):
    """Whose descent a model is. A catalogue may name others, as plain text."""

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
    """What a model can do, as far as the registry can tell.

    Attributes:
        context: Tokens that it was trained for.
        temperature: The recommended one, where one is known.
        completion: Whether it completes text.
        tools: Whether it calls tools.
        vision: Whether it sees images.
        thinking: Whether it thinks before it answers.
        coding: Whether it was made for code.
        insert: Whether it fills in the middle of a text.
        embedding: Whether it makes embeddings, and nothing else.
        json_mode: Whether it answers in JSON on demand.
        source: ``registry``; ``default`` for a model that nobody knows.
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
        """The names of what it can do."""
        return frozenset(
            name
            for name in self.__struct_fields__
            if name not in {"context", "temperature", "source"} and getattr(self, name)
        )


class KnownModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model that the registry knows.

    Attributes:
        name: Its name in the catalogue.
        family: Whose descent it is, where that is known.
        capabilities: What it can do.
        pull: What to ask Ollama's library for; None where no tag is known.
        parameter_count: Number of parameters of what ``pull`` names.
        download_bytes: Size of what ``pull`` names, bytes.
        memory_bytes: Memory that it is said to need, bytes.
        ranks: By role, its place among the models that are good for it, from 1.
        sources: By fact, where it comes from; a fact without one is a default.
        note: What else there is to say of it.
    """

    name: str
    family: ModelFamily | str | None = None
    capabilities: ModelCapabilities
    pull: str | None = None
    parameter_count: int | None = None
    download_bytes: int | None = None
    memory_bytes: int | None = None
    ranks: dict[ModelRole, int] = {}
    sources: dict[str, Source] = {}
    note: str = ""

    @property
    def context(self) -> int:
        """Tokens that it was trained for."""
        return self.capabilities.context

    @property
    def temperature(self) -> float | None:
        """The recommended temperature, where one is known."""
        return self.capabilities.temperature

    def tells(self, fact: str) -> bool:
        """Return whether its catalogue says this fact; else it is a default."""
        return fact in self.sources or (
            fact == "completion" and "embedding" in self.sources
        )

    def is_about(self, name: str) -> bool:
        """Return whether what it says of ``pull`` holds for a name."""
        return key_of(name) in {self.name, key_of(self.pull or self.name)}

    def lacks(self, role: ModelRole) -> str | None:
        """Return in words what it lacks for a role; None where it lacks nothing."""
        return roles.lacking(
            role,
            can=self.capabilities.names,
            parameter_count=self.parameter_count,
            context=self.context,
        )


class Suggestion(msgspec.Struct, frozen=True, kw_only=True):
    """A model that is worth pulling for a role.

    Attributes:
        pull: What to ask Ollama's library for.
        role: The role.
        model: What is known of it.
        reason: Why, in words.
    """

    pull: str
    role: ModelRole
    model: KnownModel
    reason: str


def parse_role(role: ModelRole | str) -> ModelRole:
    """Return the role of that name, in any case and spelling.

    Raises:
        UnknownRoleError: No role has that name.
    """
    found = ModelRole.parse(role)
    if found is None:
        raise UnknownRoleError(role, known=tuple(ModelRole))
    return found


class ModelRegistry:
    """What is known of models before they are there."""

    def __init__(self, source: Catalogue | None = None) -> None:
        self._catalogue = catalogue.shipped() if source is None else source
        known = {k: _known(k, entry) for k, entry in self._catalogue.entries.items()}
        ranks = _ranks(self._catalogue, known)
        self._models = {
            key: msgspec.structs.replace(model, ranks=ranks.get(key, {}))
            for key, model in known.items()
        }
        self._by_words = {
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
        """Return this registry with a catalogue laid on top.

        Args:
            source: A TOML file, or the tables of such a document.

        Raises:
            InvalidCatalogueError: It cannot be used; this registry stays as it is.
        """
        if isinstance(source, Mapping):
            upper = catalogue.parse(source, origin="data")
        else:
            upper = catalogue.read(Path(source))
        laid = ModelRegistry(self._catalogue.beneath(upper))
        laid._check(upper)
        return laid

    def find(self, name: str) -> KnownModel | None:
        """Return the known model that a name belongs to; None for an unknown one.

        The exact name goes first, then the name without its tag, then the longest
        known name that the words of this one begin with. Case does not matter; host
        and namespace do only where a catalogue names them.
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
        """Return what a model can be expected to do; defaults for an unknown one."""
        model = self.find(name)
        return ModelCapabilities() if model is None else model.capabilities

    def for_role(self, role: ModelRole | str) -> tuple[KnownModel, ...]:
        """Return the known models that fit a role, the best first.

        Raises:
            UnknownRoleError: No role has that name.
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
        memory_bytes: int | None = None,
    ) -> tuple[Suggestion, ...]:
        """Return the models that are worth pulling for a role, the best first.

        Only models with a rank, whose tag in Ollama's library a source shows. Of
        models whose size is not known it cannot be told whether they fit; they are
        left out where a limit is given.

        Args:
            role: The role.
            present: Names of the models that are there already.
            memory_bytes: Memory that a model may need, bytes; None: any.

        Raises:
            UnknownRoleError: No role has that name.
        """
        wanted = parse_role(role)
        there = {id(self.find(name)) for name in present}
        return tuple(
            Suggestion(pull=model.pull, role=wanted, model=model, reason=reason)
            for model in self.for_role(wanted)
            if id(model) not in there
            and model.pull is not None
            and model.sources["pull"].verified
            and (reason := _reason(model, wanted, memory_bytes))
        )

    def _check(self, upper: Catalogue) -> None:
        """Refuse a catalogue that ranks a model for a role that it does not fit."""
        for role, keys in upper.roles.items():
            for key in keys:
                model = self._models.get(key)
                lack = "no such model" if model is None else model.lacks(role)
                if lack is not None:
                    raise InvalidCatalogueError(
                        f"catalogue {upper.origin}",
                        f"is not valid: role {role}, model {key}: {lack}",
                    )


def _ranks(
    source: Catalogue, known: Mapping[str, KnownModel]
) -> dict[str, dict[ModelRole, int]]:
    """Return by model its ranks; a catalogue on top may have ended a fitness."""
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
        memory_bytes=facts.memory_bytes,
        sources=entry.sources,
        note=facts.note or "",
    )


def _family(name: str | None) -> ModelFamily | str | None:
    known = {family.value: family for family in ModelFamily}
    return None if name is None else known.get(name.lower(), name.lower())


def _reason(model: KnownModel, role: ModelRole, memory_bytes: int | None) -> str:
    """Return why a model is suggested; nothing where it is not."""
    rank = model.ranks.get(role)
    needed = model.memory_bytes or model.download_bytes
    if rank is None:
        return ""
    place = "best" if rank == 1 else f"number {rank}"
    words = f"{place} for {role.replace('_', ' ')} in the catalogue"
    if memory_bytes is None:
        return words
    if needed is None or needed > memory_bytes:
        return ""
    return f"{words}; needs at least {needed / 1e9:.1f} of {memory_bytes / 1e9:.1f} GB"


def _untagged(name: str) -> str:
    """Return a name without its tag; a host's port is none."""
    head, slash, last = name.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}"


_WORD = re.compile(r"[a-z]+|[0-9]+(?:\.[0-9]+)*")


def words_of(name: str) -> tuple[str, ...]:
    """Return the words of a name in lower case: letters, and numbers with points.

    ``qwen2.5-coder:7b`` is ``qwen``, ``2.5``, ``coder``, ``7``, ``b``: a version is
    one word, so that 3.10 does not begin with 3.1.
    """
    return tuple(_WORD.findall(name.lower()))
