"""Run a verb for several models. A failure of one does not stop the others."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from herdbook.cli.errors import DONE, ErrorShape, sentence, shape
from herdbook.cli.invocation import Invocation, answering
from herdbook.cli.lookup import node_for
from herdbook.core import Fleet, HerdbookError, InvalidNameError, ModelManager
from herdbook.core.models.names import canonical_name


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """A line of ``--json`` for one of several models that failed."""

    name: str
    node: str | UnsetType = UNSET
    error: ErrorShape


class Target(NamedTuple):
    """A model to run a verb for.

    Attributes:
        manager: The manager of its node.
        name: Its name.
        node: Name of the node to show; None if there is only one.
    """

    manager: ModelManager
    name: str
    node: str | None

    @property
    def label(self) -> str:
        """The model, with its node if there are several."""
        return self.name if self.node is None else f"{self.name} on {self.node}"


async def targets(
    invocation: Invocation,
    fleet: Fleet,
    given: Iterable[str],
    *,
    find: Callable[[Invocation, Fleet, str], Awaitable[ModelManager]] = node_for,
) -> list[Target]:
    """Check all names before anything is done; return each model once.

    Args:
        invocation: The call.
        fleet: The nodes.
        given: Names as the user wrote them.
        find: Returns the manager of the node that is meant.

    Raises:
        InvalidNameError: A name is not valid.
        AmbiguousNodeError: Several nodes have a model.
        ModelNotFoundError: None of several nodes knows a model.
        OllamaError: One of several nodes does not answer.
    """
    found = []
    for name in given:
        manager = await find(invocation, fleet, name)
        models = await manager.now()
        if fleet.is_several:
            await answering(manager)
        node = models.node if fleet.is_several else None
        found.append(Target(manager, models.spelled(name), node))
    return list(dict.fromkeys(found))


async def check_names(invocation: Invocation, given: Sequence[str]) -> None:
    """Check names before the server is asked.

    Raises:
        InvalidNameError: A name is not valid, and the log does not have it.
    """
    try:
        for name in given:
            canonical_name(name)
    except InvalidNameError:
        # Servers accept names that Ollama itself would not; the log has them.
        async with invocation.reading(refresh=False) as fleet:
            for name in given:
                manager = await node_for(invocation, fleet, name)
                (await manager.now()).spelled(name)


async def for_each(
    invocation: Invocation,
    models: Sequence[Target],
    action: Callable[[Target], Awaitable[int | None]],
) -> int:
    """Run an action per model and return the worst exit code.

    A failure of a single model is raised. With several models, it is reported on
    stderr or as an object in JSON, and the next model follows.
    """
    if len(models) == 1:
        return await action(models[0]) or DONE
    worst = DONE
    for model in models:
        try:
            code = await action(model) or DONE
        except HerdbookError as error:
            failed = shape(error)
            code = failed.exit
            if invocation.json:
                node = UNSET if model.node is None else model.node
                line = Failed(name=model.name, node=node, error=failed)
                invocation.screen.write_json(line, in_lines=True)
            else:
                sys.stderr.write(f"{sentence(failed)}\n")
        worst = max(worst, code)
    return worst
