"""Filter models, for ``ls``, the API and the models page."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec

from herdbook.core import CallerError, ModelState, ModelStatus, ReadModel
from herdbook.core.errors.suggestions import did_you_mean
from herdbook.core.models.capabilities import SERVER_WORDS

STATES: Mapping[str, ModelState] = {
    "loaded": ModelState.LOADED,
    "available": ModelState.AVAILABLE,
    "loading": ModelState.LOADING,
    "error": ModelState.ERROR,
    "deleted": ModelState.NOT_PRESENT,
}
PULLING = "pulling"
"""Shown for a model in the state ``loading`` that is being pulled."""
STATE_NAMES = (*STATES, PULLING)
CAPABILITIES = (*SERVER_WORDS, "coding", "json")


class ModelFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Conditions that a model must meet, all of them.

    Attributes:
        text: Part of the name, in any case.
        capabilities: Capabilities that the model has.
        states: Accepted states; empty for any.
        pulling: Whether models that are being pulled are accepted in any case.
        family: Start of the family, in any case.
        larger_bytes: Least size on disk, bytes.
        smaller_bytes: Greatest size on disk, bytes.
    """

    text: str = ""
    capabilities: tuple[str, ...] = ()
    states: frozenset[ModelState] = frozenset()
    pulling: bool = False
    family: str = ""
    larger_bytes: int | None = None
    smaller_bytes: int | None = None

    def matches(self, status: ModelStatus, models: ReadModel) -> bool:
        """Return whether a model meets all conditions."""
        size = status.size_bytes
        known = models.capabilities(status.name) if self.capabilities else {}
        return (
            self.text.lower() in status.name.lower()
            and self._accepts(status)
            and (status.family or "").lower().startswith(self.family.lower())
            and all(name in known and known[name].value for name in self.capabilities)
            and (
                self.larger_bytes is None
                or (size is not None and size >= self.larger_bytes)
            )
            and (
                self.smaller_bytes is None
                or (size is not None and size <= self.smaller_bytes)
            )
        )

    def _accepts(self, status: ModelStatus) -> bool:
        if self.pulling and str(status.lifecycle) == PULLING:
            return True
        return status.state in self.states or not (self.states or self.pulling)


def parse_states(names: Iterable[str]) -> tuple[frozenset[ModelState], bool]:
    """Return the states with some names, and whether one of them is ``PULLING``.

    Raises:
        CallerError: There is no such state.
    """
    found = checked("state", names, STATE_NAMES)
    return frozenset(STATES[each] for each in found if each in STATES), PULLING in found


def checked(kind: str, values: Iterable[str], known: Collection[str]) -> list[str]:
    """Return values in lower case.

    Args:
        kind: The kind of the values in a word, for the error.
        values: The given values.
        known: The values that exist.

    Raises:
        CallerError: A value is not one of the known ones.
    """
    lowered = [value.lower() for value in values]
    for value in lowered:
        if value not in known:
            raise CallerError(
                f"Unknown {kind}",
                f"{value[:80]!r}",
                f"{did_you_mean(value, known)}Use one of: {', '.join(known)}",
            )
    return lowered
