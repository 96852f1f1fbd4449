"""From what is there to what is wanted: the steps, with their bytes, and their doing.

A plan is made whole before anything is done, and everything that will be done stands
in it. What can fail without loss comes first: pulls, settings, then what ends
something, and loads when there is room for them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Iterator, Mapping
from contextlib import aclosing
from typing import Protocol, TypeAlias

import msgspec

from herdbook.core.desired.desired import DesiredModel, DesiredSet
from herdbook.core.errors import CloudModelError, InvalidDesiredError
from herdbook.core.history.read_model import ReadModel
from herdbook.core.models import configuration
from herdbook.core.models.names import name_key
from herdbook.core.models.registry import ModelRegistry
from herdbook.core.operations.pull_progress import PullProgress
from herdbook.events.facts import Setting
from herdbook.events.lifecycle import ModelState
from herdbook.projections.status import ModelStatus


class _Step(msgspec.Struct, frozen=True, kw_only=True, tag_field="step"):
    """One thing to do with one model.

    Attributes:
        name: The model.
    """

    name: str


class PullStep(_Step, frozen=True, kw_only=True, tag="pull"):
    """Fetch a model.

    Attributes:
        size_bytes: What the catalogue says of its size, bytes; None: not known. What
            the server has of it already need not be fetched.
    """

    size_bytes: int | None


class ConfigureStep(_Step, frozen=True, kw_only=True, tag="configure"):
    """Change what a model is used with.

    Attributes:
        set: Settings with their new values.
        unset: Settings that are to have no value of ours any more.
        was: What the changed ones are now.
        note: Why.
    """

    set: dict[str, Setting]
    unset: tuple[str, ...]
    was: dict[str, Setting]
    note: str


class UnloadStep(_Step, frozen=True, kw_only=True, tag="unload"):
    """Unload a model, and with it all of the same weights.

    Attributes:
        memory_bytes: Memory that this frees, bytes; None: not known.
    """

    memory_bytes: int | None


class DeleteStep(_Step, frozen=True, kw_only=True, tag="delete"):
    """Delete a model.

    Attributes:
        frees_bytes: What that frees on the server's disk, bytes: next to nothing
            where a model that stays has the same weights.
        shared_with: The models of the same weights that are there then; some of
            them may be deleted by a later step.
    """

    frees_bytes: int
    shared_with: tuple[str, ...]


class LoadStep(_Step, frozen=True, kw_only=True, tag="load"):
    """Load a model into memory.

    Attributes:
        size_bytes: Size of the model, bytes, which it needs at least; None: not known.
    """

    size_bytes: int | None


Step: TypeAlias = PullStep | ConfigureStep | UnloadStep | DeleteStep | LoadStep


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done, in order; nothing where all is as it is wanted.

    Attributes:
        origin: Where the desired set was read.
        steps: The steps.
    """

    origin: str
    steps: tuple[Step, ...]

    @property
    def fetch_bytes(self) -> int:
        """What is to be fetched, as far as sizes are known, bytes."""
        return sum(s.size_bytes or 0 for s in self.steps if isinstance(s, PullStep))

    @property
    def unknown_sizes(self) -> int:
        """How many models of unknown size are to be fetched."""
        pulls = [step for step in self.steps if isinstance(step, PullStep)]
        return sum(step.size_bytes is None for step in pulls)

    @property
    def frees_bytes(self) -> int:
        """What deleting frees on the server's disk, bytes."""
        return sum(s.frees_bytes for s in self.deletes)

    @property
    def deletes(self) -> tuple[DeleteStep, ...]:
        """The steps that delete."""
        return tuple(step for step in self.steps if isinstance(step, DeleteStep))


class PlanProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far the doing of a plan is.

    Attributes:
        step: The step that is at work.
        progress: How far a pull is.
        done: Whether the step is done.
    """

    step: Step
    progress: PullProgress | None = None
    done: bool = False


def plan(
    desired: DesiredSet, read_model: ReadModel, registry: ModelRegistry, *, prune: bool
) -> Plan:
    """Return the steps from what is there to what is wanted.

    Args:
        desired: What is wanted.
        read_model: What is there.
        registry: What is known of models that are not.
        prune: Whether what is not wanted goes: models that the set does not name,
            and settings that it does not name of models that it does.

    Raises:
        InvalidDesiredError: It wants a model in memory and out of it.
        CloudModelError: A cloud model is to be loaded.
    """
    return Plan(
        origin=desired.origin,
        steps=tuple(_Planner(desired, read_model, registry).steps(prune=prune)),
    )


class _Planner:
    """The models that are wanted, each with what it is now."""

    def __init__(
        self, desired: DesiredSet, read_model: ReadModel, registry: ModelRegistry
    ) -> None:
        self._registry = registry
        self._there = [status for status in read_model.statuses() if status.present]
        self._pairs = [(each, read_model.status(each.name)) for each in desired.models]
        self._check_memory(desired.origin)

    def steps(self, *, prune: bool) -> Iterator[Step]:
        """Yield the steps in order."""
        yield from self._pulls()
        for wanted, status in self._pairs:
            yield from _configure(wanted, status, prune=prune)
        yield from self._unloads()
        if prune:
            yield from self._deletes()
        for wanted, status in self._pairs:
            if wanted.loaded and status.state is not ModelState.LOADED:
                size = status.size_bytes or self._expected(status.name)
                yield LoadStep(name=status.name, size_bytes=size)

    def _check_memory(self, origin: str) -> None:
        """Refuse what cannot be at the same time, or not here."""
        wanted: dict[str, DesiredModel] = {}
        for each, status in self._pairs:
            if each.loaded and status.remote_host:
                raise CloudModelError(status.name)
            if each.loaded is None or status.weights is None:
                continue
            other = wanted.setdefault(status.weights, each)
            if other.loaded is not each.loaded:
                raise InvalidDesiredError(
                    f"desired set {origin}",
                    f"is not valid: {other.name} and {each.name} have the same "
                    "weights: both are to be loaded, or neither",
                )

    def _pulls(self) -> Iterator[Step]:
        for _, status in self._pairs:
            if not status.present:
                size = self._expected(status.name)
                yield PullStep(name=status.name, size_bytes=size)

    def _expected(self, name: str) -> int | None:
        known = self._registry.find(name)
        return known.download_bytes if known and known.is_about(name) else None

    def _unloads(self) -> Iterator[Step]:
        seen: set[str] = set()
        for wanted, status in self._pairs:
            weights = status.weights or status.name
            if wanted.loaded is not False or weights in seen:
                continue
            if status.state is ModelState.LOADED:
                seen.add(weights)
                runner = status.runner
                memory = runner.size_bytes if runner else None
                yield UnloadStep(name=status.name, memory_bytes=memory)

    def _deletes(self) -> Iterator[Step]:
        wanted = {name_key(status.name) for _, status in self._pairs}
        left = {status.name: status for status in self._there}
        for status in self._there:
            if name_key(status.name) in wanted:
                continue
            del left[status.name]
            shared = _sharing(status, left)
            yield DeleteStep(
                name=status.name,
                frees_bytes=0 if shared else status.size_bytes or 0,
                shared_with=shared,
            )


def _sharing(status: ModelStatus, left: Mapping[str, ModelStatus]) -> tuple[str, ...]:
    """Return the models that are left and have the same weights."""
    if status.weights is None:
        return ()
    return tuple(n for n, other in left.items() if other.weights == status.weights)


def _configure(
    wanted: DesiredModel, status: ModelStatus, *, prune: bool
) -> Iterator[Step]:
    extra = [name for name in status.settings if name not in wanted.settings]
    change = configuration.change(
        status.settings, wanted.settings, unset=extra if prune else (), note=wanted.note
    )
    if change is not None:
        yield ConfigureStep(
            name=status.name,
            set=change.set,
            unset=change.unset,
            was=change.was,
            note=change.note,
        )


class PlanTarget(Protocol):
    """What applies the steps: the manager, or whatever else has its commands."""

    async def get_status(self, name: str) -> ModelStatus:
        """Return the status of a model."""
        ...

    def pull(self, name: str) -> AsyncGenerator[PullProgress, None]:
        """Pull a model."""
        ...

    async def configure(
        self,
        name: str,
        settings: Mapping[str, Setting],
        *,
        unset: Collection[str],
        note: str,
    ) -> object:
        """Change the settings of a model."""
        ...

    async def load(self, name: str) -> object:
        """Load a model."""
        ...

    async def unload(self, name: str) -> object:
        """Unload a model."""
        ...

    async def delete(self, name: str) -> object:
        """Delete a model."""
        ...


async def apply(manager: PlanTarget, plan: Plan) -> AsyncGenerator[PlanProgress, None]:
    """Do the steps of a plan in order; tell of each when it begins and is done.

    It ends with the first failure: what was fields as done is done, and the rest is
    not begun. A step that somebody else has done meanwhile is not done again.

    Raises:
        HerdbookError: A step failed.
    """
    for step in plan.steps:
        yield PlanProgress(step=step)
        async with aclosing(_do(manager, step)) as fields:
            async for progress in fields:
                yield PlanProgress(step=step, progress=progress)
        yield PlanProgress(step=step, done=True)


async def _do(manager: PlanTarget, step: Step) -> AsyncGenerator[PullProgress, None]:
    status = await manager.get_status(step.name)
    match step:
        case PullStep():
            if not status.present:
                async with aclosing(manager.pull(step.name)) as pulling:
                    async for progress in pulling:
                        yield progress
        case ConfigureStep():
            await manager.configure(
                step.name, step.set, unset=step.unset, note=step.note
            )
        case UnloadStep():
            await manager.unload(step.name)
        case DeleteStep():
            if status.present:
                await manager.delete(step.name)
        case LoadStep():
            if status.state is not ModelState.LOADED:
                await manager.load(step.name)
