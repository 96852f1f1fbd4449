"""What to do about a failure that the log has: the words of the error that it was.

The log keeps a failure's stable word; its remedy is said anew, in today's words.
"""

from __future__ import annotations

from collections.abc import Iterator

from herdbook.core import HerdbookError, LoadFailedError, OllamaError, PullRefusedError
from herdbook.core.errors import LoadFailure, PullRefusal


def remedy_of(kind: str, name: str) -> str:
    """Return what to do about a failure; empty where nothing is known to help.

    Args:
        kind: The stable word of the error, as the log has it.
        name: The model.
    """
    told: HerdbookError | None = None
    if kind in tuple(LoadFailure):
        told = LoadFailedError(name, failure=LoadFailure(kind))
    elif kind in tuple(PullRefusal):
        told = PullRefusedError(name, refusal=PullRefusal(kind))
    if told is not None:
        return told.remedy
    found = (each.advises for each in _kinds(OllamaError) if each.code == kind)
    return next(found, "").format(subject=name)


def _kinds(root: type[OllamaError]) -> Iterator[type[OllamaError]]:
    yield root
    for kind in root.__subclasses__():
        yield from _kinds(kind)
