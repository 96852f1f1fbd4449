"""Run a verb for several models. A failure of one does not stop the others."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterable

import msgspec

from herdbook.cli.errors import DONE, ErrorShape, sentence, shape
from herdbook.cli.invocation import Invocation
from herdbook.core import HerdbookError, ReadModel


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """A line of ``--json`` for one of several models that failed."""

    name: str
    error: ErrorShape


def distinct(models: ReadModel, given: Iterable[str]) -> list[str]:
    """Check all names before anything is done; return each model once.

    Raises:
        InvalidNameError: A name is not valid.
    """
    return list(dict.fromkeys(models.spelled(name) for name in given))


async def for_each(
    invocation: Invocation,
    names: list[str],
    action: Callable[[str], Awaitable[int | None]],
) -> int:
    """Run an action per model and return the worst exit code.

    A failure of a single model is raised. Of several models, it is reported, on
    stderr or as an object in JSON, and the next model follows.
    """
    if len(names) == 1:
        return await action(names[0]) or DONE
    worst = DONE
    for name in names:
        try:
            code = await action(name) or DONE
        except HerdbookError as error:
            failed = shape(error)
            code = failed.exit
            if invocation.json:
                line = Failed(name=name, error=failed)
                invocation.screen.write_json(line, in_lines=True)
            else:
                sys.stderr.write(f"{sentence(failed)}\n")
        worst = max(worst, code)
    return worst
