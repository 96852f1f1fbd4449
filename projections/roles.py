"""The roles of models, and the requirements of each role.

A requirement is strict: a model that does not meet it is never recommended for the
role, whatever its rank. The registry and the recommendation view share these rules.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import StrEnum

from herdbook.events.facts import ModelUsed

FAST_PARAMETERS = 4_000_000_000
"""Maximum number of parameters of a fast model."""

FAST_CONTEXT = 8192
"""Maximum context of a fast model whose number of parameters is unknown, tokens."""

_EMBEDDING_PATHS = frozenset({"/api/embed", "/api/embeddings", "/v1/embeddings"})

CAPABILITY_SETTING = "capability."
"""Prefix of the settings that override a capability."""


class ModelRole(StrEnum):
    """A kind of task that a model is used for."""

    GENERAL = "general"
    CODING = "coding"
    FAST = "fast"
    TOOL_USE = "tool_use"
    VISION = "vision"
    EMBEDDING = "embedding"
    THINKING = "thinking"

    @property
    def words(self) -> str:
        """The name in words: ``tool use``."""
        return self.value.replace("_", " ")

    @classmethod
    def parse(cls, text: str) -> ModelRole | None:
        """Return the role with a name, or None.

        ``ToolUse``, ``tool-use`` and ``tools`` name the same role.
        """
        return _NAMES.get("".join(filter(str.isalnum, text)).lower())


_NAMES = {role.value.replace("_", ""): role for role in ModelRole} | {
    "tools": ModelRole.TOOL_USE,
    "code": ModelRole.CODING,
    "embed": ModelRole.EMBEDDING,
}

NEEDS: dict[ModelRole, tuple[str, ...]] = {
    ModelRole.GENERAL: ("completion",),
    ModelRole.CODING: ("completion", "coding"),
    ModelRole.FAST: ("completion",),
    ModelRole.TOOL_USE: ("completion", "tools"),
    ModelRole.VISION: ("completion", "vision"),
    ModelRole.EMBEDDING: ("embedding",),
    ModelRole.THINKING: ("completion", "thinking"),
}
"""The capabilities that each role requires."""


def lacking(
    role: ModelRole,
    *,
    can: Collection[str],
    parameter_count: int | None,
    context: int,
) -> str | None:
    """Describe what a model lacks for a role; return None if it lacks nothing.

    Args:
        role: The role.
        can: Capabilities of the model.
        parameter_count: Number of parameters, if known.
        context: Trained context, tokens.
    """
    missing = [need for need in NEEDS[role] if need not in can]
    if missing:
        return f"does not support {missing[-1]}"
    if role is not ModelRole.FAST:
        return None
    if parameter_count is None:
        small, size = context <= FAST_CONTEXT, f"a context of {context:,} tokens"
    else:
        small = parameter_count <= FAST_PARAMETERS
        size = f"{parameter_count / 1e9:.1f} billion parameters"
    return None if small else f"too large: {size}"


def is_suited(
    role: ModelRole, *, can: Collection[str], ranks: Iterable[tuple[str, int]]
) -> bool:
    """Return whether a use that names no role counts for a role that the model fits.

    A coding model is used to code, and for what the catalogue ranks it. Any other model
    may have been used for each role that it fits.

    Args:
        role: A role that the model fits.
        can: Capabilities of the model.
        ranks: Roles for which the catalogue ranks the model, with the rank.
    """
    if role is ModelRole.CODING or "coding" not in can:
        return True
    return any(name == role for name, _ in ranks)


def role_of_use(use: ModelUsed) -> ModelRole | None:
    """Return the role that a use names, or shows by its endpoint; None if neither."""
    role = ModelRole.parse(use.role) if isinstance(use.role, str) else None
    if role is None and use.endpoint in _EMBEDDING_PATHS:
        return ModelRole.EMBEDDING
    return role
