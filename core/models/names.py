"""Names of models, read and written as Ollama does.

One model has one name here: the canonical one, which is how the server itself
spells it in ``/api/tags``. The default host and namespace are left out, the tag
is always there, the case is kept; names that differ in case alone are the same
model.
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
"""Characters that a name may have, so that it is the name of a stream on any node."""

_PARTS: Final = {
    "host": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}"),
    "namespace": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}"),
    "model": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"),
    "tag": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"),
}
"""Ollama's own grammar (``types/model/name.go``): ASCII, the lengths in bytes."""


class ModelName(msgspec.Struct, frozen=True, kw_only=True):
    """A name in its parts, the defaults filled in.

    Attributes:
        host: The registry, with a port where one was given.
        namespace: Whose model it is there.
        model: The model.
        tag: Which one of them.
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

    @property
    def is_cloud(self) -> bool:
        """Whether the tag asks for a model that runs at ollama.com."""
        tag = self.tag.lower()
        return tag == "cloud" or tag.endswith("-cloud")


def parse_name(text: str) -> ModelName:
    """Read a name as a user writes it.

    ``:local`` is left out and ``name:tag:cloud`` becomes ``name:tag-cloud``, which
    is what a server makes of them when it pulls.

    Raises:
        InvalidNameError: It is no name by Ollama's grammar.
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
            raise InvalidNameError(text, reason=f"its {part} is not valid")
    return name


@lru_cache(maxsize=4096)
def canonical_name(text: str) -> str:
    """Return the one name of a model: ``llama3.1`` is ``llama3.1:latest``.

    Raises:
        InvalidNameError: It is no name by Ollama's grammar.
    """
    return str(parse_name(text))


def name_key(name: str) -> str:
    """Return what two canonical names of the same model have in common."""
    return name.lower()


def same_name(one: str, other: str) -> bool:
    """Tell whether two names, as users write them, mean the same model.

    Raises:
        InvalidNameError: One of them is no name.
    """
    return name_key(canonical_name(one)) == name_key(canonical_name(other))


def respelled(name: str, known: Iterable[str]) -> str:
    """Return a name with each part spelled as in names that the server has.

    So does a server that pulls a name which it has not: it keeps the spelling of
    the models, tags and namespaces that it knows already.

    Args:
        name: A canonical name.
        known: The canonical names that the server has.
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
    """Return whether it is a name; older versions recorded what a server listed."""
    try:
        parse_name(text)
    except InvalidNameError:
        return False
    return True


def is_canonical(text: str) -> bool:
    """Return whether it is the canonical name of a model."""
    return _is_name(text) and canonical_name(text) == text


def _has_tag(text: str) -> bool:
    return text.rfind(":") > text.rfind("/")


def _without_source(text: str, *, original: str) -> str:
    """Undo the suffix that says where a model is to run, as a pull does."""
    base, source = _cut_source(text)
    if source is None:
        return text
    if _cut_source(base)[1] is not None:
        raise InvalidNameError(original, reason="it says twice where it is to run")
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
