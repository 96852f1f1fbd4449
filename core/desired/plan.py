"""Plan and apply the steps from the current state to a desired set.

A plan is complete before the first step runs. Steps that can fail without loss come
first: pulls and settings, then unloads and deletes, then loads, when there is room.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Iterable, Iterator, Mapping
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
    """A step of a plan for one model.

    Attributes:
        name: The model.
    """

    name: str


class PullStep(_Step, frozen=True, kw_only=True, tag="pull"):
    """Pull a model.

    Attributes:
        size_bytes: Download size from the catalogue, bytes; None if not known. Layers
            that the server has are not downloaded.
    """

    size_bytes: int | None


class ConfigureStep(_Step, frozen=True, kw_only=True, tag="configure"):
    """Change the settings of a model.

    Attributes:
        set: Settings with their new values.
        unset: Settings to remove.
        was: Current values of the changed settings.
        note: Reason.
    """

    set: dict[str, Setting]
    unset: tuple[str, ...]
    was: dict[str, Setting]
    note: str


class UnloadStep(_Step, frozen=True, kw_only=True, tag="unload"):
    """Unload a model and all models that share its weights.

    Attributes:
        memory_bytes: Memory that this frees, bytes; None if not known.
    """

    memory_bytes: int | None


class DeleteStep(_Step, frozen=True, kw_only=True, tag="delete"):
    """Delete a model.

    Attributes:
        frees_bytes: Disk space that this frees, bytes; 0 if a remaining model shares
            the weights.
        shared_with: Models with the same weights that are present at that time; a
            later step may delete some of them.
    """

    frees_bytes: int
    shared_with: tuple[str, ...]


class LoadStep(_Step, frozen=True, kw_only=True, tag="load"):
    """Load a model into memory.

    Attributes:
        size_bytes: Size of the model and least memory needed, bytes; None if not known.
    """

    size_bytes: int | None


Step: TypeAlias = PullStep | ConfigureStep | UnloadStep | DeleteStep | LoadStep


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The steps to a desired set; empty if the current state matches it.

    Attributes:
        origin: Origin of the desired set.
        steps: The steps, in order.
    """

    origin: str
    steps: tuple[Step, ...]

    @property
    def fetch_bytes(self) -> int:
        """Sum of the known download sizes, bytes."""
        return sum(s.size_bytes or 0 for s in self.steps if isinstance(s, PullStep))

    @property
    def unknown_sizes(self) -> int:
        """Number of pulls with unknown size."""
        pulls = [step for step in self.steps if isinstance(step, PullStep)]
        return sum(step.size_bytes is None for step in pulls)

    @property
    def frees_bytes(self) -> int:
        """Disk space that the deletes free, bytes."""
        return sum(s.frees_bytes for s in self.deletes)

    @property
    def deletes(self) -> tuple[DeleteStep, ...]:
        """The steps that delete."""
        return tuple(step for step in self.steps if isinstance(step, DeleteStep))


class PlanProgress(msgspec.Struct, frozen=True, kw_only=True):
    """Progress of a plan that is being applied.

    Attributes:
        step: The current step.
        progress: Progress of a pull.
        done: Whether the step has ended.
    """

    step: Step
    progress: PullProgress | None = None
    done: bool = False


def plan(
    desired: DesiredSet, read_model: ReadModel, registry: ModelRegistry, *, prune: bool
) -> Plan:
    """Return the steps from the current state to a desired set.

    Args:
        desired: The desired set.
        read_model: The current state.
        registry: Known models, for the sizes of pulls.
        prune: Also delete models, and remove settings, that the set does not name.

    Raises:
        InvalidDesiredError: The set contradicts itself.
        CloudModelError: The set wants a cloud model in memory.
    """
    return Plan(
        origin=desired.origin,
        steps=tuple(_Planner(desired, read_model, registry).steps(prune=prune)),
    )


class _Planner:
    """The desired models, each with its current status."""

    def __init__(
        self, desired: DesiredSet, read_model: ReadModel, registry: ModelRegistry
    ) -> None:
        self._registry = registry
        self._read_model = read_model
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
        """Refuse contradictions, and cloud models in memory."""
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
                    f"is not valid: {other.name} and {each.name} share their "
                    "weights, so both must be loaded or neither",
                )

    def _pulls(self) -> Iterator[Step]:
        for _, status in self._pairs:
            if not status.present:
                size = self._expected(status.name)
                yield PullStep(name=status.name, size_bytes=size)

    def _expected(self, name: str) -> int | None:
        """Return the size of a model: on another node, else that in the catalogue."""
        for node in self._read_model.nodes():
            status = self._read_model.of(node.name).status(name)
            if status.present and status.size_bytes is not None:
                return status.size_bytes
        found = self._registry.download_of(name)
        return found[0] if found else None

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
        names = [one.name for one in self._there if name_key(one.name) not in wanted]
        yield from deletions(self._there, names)


def deletions(models: Iterable[ModelStatus], names: Iterable[str]) -> list[DeleteStep]:
    """Return what deleting some models frees, each after those before it.

    Models that share their weights free them with the last of them. Their sizes differ
    by the small files that each has for itself, so together they free at least the
    size of the largest: that counts. Cloud models free nothing.

    Args:
        models: All models of the server.
        names: The models to delete; names of models that are not present are left out.
    """
    left = {status.name: status for status in models if status.present}
    sharing: dict[str | None, list[ModelStatus]] = {}
    for one in left.values():
        sharing.setdefault(one.weights, []).append(one)
    sizes: dict[str, int] = {}
    steps = []
    for name in names:
        status = left.pop(name, None)
        if status is None:
            continue
        shared = tuple(
            other.name
            for other in sharing[status.weights]
            if other.name in left and other.shares_weights_with(status)
        )
        weights = status.weights or name
        size = 0 if status.remote_host else status.size_bytes or 0
        sizes[weights] = max(size, sizes.get(weights, 0))
        steps.append(
            DeleteStep(
                name=name,
                frees_bytes=0 if shared else sizes[weights],
                shared_with=shared,
            )
        )
    return steps


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
    """The commands that a plan uses: those of a manager."""

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
    """Run the steps of a plan in order; yield progress when each starts and ends.

    The first failure ends the run; later steps are skipped. A step that was done by
    others meanwhile is not repeated.

    Raises:
        HerdbookError: A step failed.
    """
    for step in plan.steps:
        yield PlanProgress(step=step)
        async with aclosing(_run(manager, step)) as updates:
            async for progress in updates:
                yield PlanProgress(step=step, progress=progress)
        yield PlanProgress(step=step, done=True)


async def _run(manager: PlanTarget, step: Step) -> AsyncGenerator[PullProgress, None]:
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
