"""Remedies of recorded failures.

The log has the stable code of a failure. The remedy comes from the present error
class with this code, so that its wording is always current.
"""

from __future__ import annotations

from collections.abc import Iterator

from herdbook.core import HerdbookError, LoadFailedError, OllamaError, PullRefusedError
from herdbook.core.errors import LoadFailure, PullRefusal


def remedy_of(kind: str, name: str) -> str:
    """Return how to fix a failure; empty if there is no advice.

    Args:
        kind: Stable code of the error, as recorded.
        name: Name of the model.
    """
    error: HerdbookError | None = None
    if kind in tuple(LoadFailure):
        error = LoadFailedError(name, failure=LoadFailure(kind))
    elif kind in tuple(PullRefusal):
        error = PullRefusedError(name, refusal=PullRefusal(kind))
    if error is not None:
        return error.remedy
    found = (each.advice for each in _kinds(OllamaError) if each.code == kind)
    return next(found, "").format(subject=name)


def _kinds(root: type[OllamaError]) -> Iterator[type[OllamaError]]:
    yield root
    for kind in root.__subclasses__():
        yield from _kinds(kind)
