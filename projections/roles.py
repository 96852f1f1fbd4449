"""The roles that a model can be wanted for, and what each asks of a model.

A role gates hard: a model that lacks what the role needs is never recommended for
it, whatever its rank. The gates stand here alone; the registry and the
recommendation view both ask them.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum

FAST_PARAMETERS = 4_000_000_000
"""A model of at most that many parameters is fast."""

FAST_CONTEXT = 8192
"""Where the number of parameters is not known: one of at most that many tokens."""

CAPABILITY_SETTING = "capability."
"""What the name of a setting begins with that overrules a capability."""


class ModelRole(StrEnum):
    """What a model is wanted for."""

    GENERAL = "general"
    CODING = "coding"
    FAST = "fast"
    TOOL_USE = "tool_use"
    VISION = "vision"
    EMBEDDING = "embedding"
    THINKING = "thinking"

    @classmethod
    def parse(cls, text: str) -> ModelRole | None:
        """Return the role of that name: ``ToolUse``, ``tool-use``, ``tools`` are one.

        None where no role has that name.
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
"""The capabilities that a role needs, all of them."""


def lacking(
    role: ModelRole,
    *,
    can: Collection[str],
    parameter_count: int | None,
    context: int,
) -> str | None:
    """Return in words what a model lacks for a role; None where it lacks nothing.

    Args:
        role: The role.
        can: The capabilities that the model has.
        parameter_count: Its number of parameters, where that is known.
        context: Tokens that it was trained for.
    """
    missing = [need for need in NEEDS[role] if need not in can]
    if missing:
        return f"no {missing[-1]}"
    if role is not ModelRole.FAST:
        return None
    if parameter_count is None:
        small, size = context <= FAST_CONTEXT, f"a context of {context:,} tokens"
    else:
        small = parameter_count <= FAST_PARAMETERS
        size = f"{parameter_count / 1e9:.1f} billion parameters"
    return None if small else f"not small: {size}"
