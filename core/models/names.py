"""Names of models, parsed and written as Ollama does.

Each model has one canonical name, which is the server's spelling in ``/api/tags``:
without the default host and namespace, always with a tag, and with its case. Names
that differ only in case are the same model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

import msgspec

from herdbook.core.errors import InvalidNameError
from herdbook.events.streams import LONGEST, LONGEST_NODE, MODEL_PREFIX

DEFAULT_HOST: Final = "registry.ollama.ai"
DEFAULT_NAMESPACE: Final = "library"
DEFAULT_TAG: Final = "latest"

LONGEST_NAME: Final = LONGEST - len(f"{MODEL_PREFIX}/") - LONGEST_NODE
"""Maximum characters of a name, so that it fits into a stream's name on any node."""

_PARTS: Final = {
    "host": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}"),
    "namespace": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}"),
    "model": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"),
    "tag": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"),
}
"""Ollama's own grammar (``types/model/name.go``): ASCII, the lengths in bytes."""

_PART_NAMES: Final = {"model": "part before the tag"}


class ModelName(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a name, including defaults.

    Attributes:
        host: The registry, with its port if one was given.
        namespace: The owner of the model in the registry.
        model: The model.
        tag: The tag, which selects a variant of the model.
    """

    host: str = DEFAULT_HOST
    namespace: str = DEFAULT_NAMESPACE
    model: str
    tag: str = DEFAULT_TAG

    def __str__(self) -> str:
        return f"{self.base}:{self.tag}"

    @property
    def base(self) -> str:
        """The canonical name without its tag."""
        if self.host.lower() != DEFAULT_HOST:
            return f"{self.host}/{self.namespace}/{self.model}"
        if self.namespace.lower() != DEFAULT_NAMESPACE:
            return f"{self.namespace}/{self.model}"
        return self.model


def parse_name(text: str) -> ModelName:
    """Parse a name as a user writes it.

    ``:local`` is removed and ``name:tag:cloud`` becomes ``name:tag-cloud``, as a
    server does when it pulls.

    Raises:
        InvalidNameError: The name is not valid by Ollama's grammar.
    """
    rest = _without_source(text.strip(), original=text)
    tag = DEFAULT_TAG
    if _has_tag(rest):
        rest, _, tag = rest.rpartition(":")
    above, slash, model = rest.rpartition("/")
    host, second_slash, namespace = above.rpartition("/")
    name = ModelName(
        host=(host.partition("://")[2] or host) if second_slash else DEFAULT_HOST,
        namespace=namespace if slash else DEFAULT_NAMESPACE,
        model=model,
        tag=tag,
    )
    for part, grammar in _PARTS.items():
        if not grammar.fullmatch(getattr(name, part)):
            raise InvalidNameError(
                text, reason=f"the {_PART_NAMES.get(part, part)} is not valid"
            )
    return name


@lru_cache(maxsize=4096)
def canonical_name(text: str) -> str:
    """Return the canonical name of a model: ``llama3.1`` is ``llama3.1:latest``.

    Raises:
        InvalidNameError: The name is not valid by Ollama's grammar.
    """
    return str(parse_name(text))


def name_key(name: str) -> str:
    """Return a key that is equal for canonical names of the same model."""
    return name.lower()


def same_name(one: str, other: str) -> bool:
    """Return whether two names, as users write them, mean the same model.

    Raises:
        InvalidNameError: One of the names is not valid.
    """
    return name_key(canonical_name(one)) == name_key(canonical_name(other))


def respelled(name: str, known: Iterable[str]) -> str:
    """Return a name with each part in the server's spelling.

    A server does the same when it pulls a new model: it uses the spelling of the
    models, tags and namespaces that it already has.

    Args:
        name: A canonical name.
        known: The canonical names of the models on the server.
    """
    given = msgspec.structs.asdict(parse_name(name))
    spellings = {
        (part, name_key(text)): text
        for other in known
        if _is_name(other)
        for part, text in msgspec.structs.asdict(parse_name(other)).items()
    }
    parts = {p: spellings.get((p, name_key(t)), t) for p, t in given.items()}
    return str(ModelName(**parts))


def _is_name(text: str) -> bool:
    """Return whether a name is valid; older versions recorded any listed name."""
    try:
        parse_name(text)
    except InvalidNameError:
        return False
    return True


def is_canonical(text: str) -> bool:
    """Return whether a text is the canonical name of a model."""
    return _is_name(text) and canonical_name(text) == text


def _has_tag(text: str) -> bool:
    return text.rfind(":") > text.rfind("/")


def _without_source(text: str, *, original: str) -> str:
    """Remove the suffix for where a model runs, as a pull does."""
    base, source = _cut_source(text)
    if source is None:
        return text
    if _cut_source(base)[1] is not None:
        raise InvalidNameError(original, reason="it has two suffixes for where it runs")
    if source == "local":
        return base
    return f"{base}-cloud" if _has_tag(base) else f"{base}:cloud"


def _cut_source(text: str) -> tuple[str, str | None]:
    base, colon, suffix = text.rpartition(":")
    word = suffix.strip().lower()
    if not colon:
        return text, None
    if word in {"cloud", "local"}:
        return base, word
    if word.endswith("-cloud") and "/" not in suffix:
        return f"{base}:{suffix.strip()[: -len('-cloud')]}", "cloud"
    return text, None
