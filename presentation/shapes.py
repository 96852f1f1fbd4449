"""The shapes that ``--json`` answers with, one per verb, stable in a major version.

Sizes are bytes, durations seconds, times ISO 8601 with ``Z``. What is not known is
``null``.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec

from herdbook.core import (
    Activity,
    Candidate,
    Capability,
    FactSource,
    Finding,
    HistoryEntry,
    ModelState,
    ModelStatus,
    NodeStatus,
    PullProgress,
    ReadModel,
    Runner,
    Suggestion,
)
from herdbook.core.concurrency.time_slice import TimeSlice
from herdbook.core.desired.plan import Plan, Step
from herdbook.core.history.explain import Explanation, ExplanationEvent
from herdbook.events.facts import Setting
from herdbook.projections.status import Failure, Work


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """The context of a model, in tokens: what it was trained for, and the others."""

    trained: int | None
    source: FactSource | None
    configured: int | None
    in_effect: int | None


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A model: an element of ``ls``; the answer of ``show`` and of what changes one."""

    name: str
    node: str
    state: ModelState
    activity: Activity | None
    present: bool
    updating: bool
    since: datetime | None
    stale_since: datetime | None
    version: int
    digest: str | None
    weights: str | None
    size_bytes: int | None
    remote_host: str | None
    family: str | None
    parameter_count: int | None
    quantization: str | None
    context: Context
    capabilities: dict[str, Capability]
    settings: dict[str, Setting]
    runner: Runner | None
    uses: int
    last_used_at: datetime | None
    last_used_by: str | None
    last_failure: Failure | None
    work: Work | None
    update: Work | None


def model(status: ModelStatus, moment: ReadModel) -> Model:
    """Return a status as it is told."""
    return Model(
        name=status.name,
        node=status.node,
        state=status.state,
        activity=status.activity,
        present=status.present,
        updating=status.updating,
        since=status.since,
        stale_since=status.stale_since,
        version=status.version,
        digest=status.digest,
        weights=status.weights,
        size_bytes=status.size_bytes,
        remote_host=status.remote_host,
        family=status.family,
        parameter_count=status.parameter_count,
        quantization=status.quantization,
        context=Context(
            trained=status.context_trained,
            source=status.context_source,
            configured=status.context_configured,
            in_effect=status.context_in_effect,
        ),
        capabilities=moment.capabilities(status.name),
        settings=status.settings,
        runner=status.runner,
        uses=status.uses,
        last_used_at=status.last_used_at,
        last_used_by=status.last_used_by,
        last_failure=status.last_failure,
        work=status.work,
        update=status.update,
    )


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``config``: our settings, and what requests get of them."""

    name: str
    settings: dict[str, Setting]
    options: dict[str, Setting]
    keep_alive: str | int | float | None


class Suggested(msgspec.Struct, frozen=True, kw_only=True):
    """An element of ``suggest``."""

    pull: str
    role: str
    reason: str
    parameter_count: int | None
    download_bytes: int | None
    memory_bytes: int | None
    note: str


def suggested(suggestion: Suggestion) -> Suggested:
    """Return a suggestion as it is told."""
    known = suggestion.model
    return Suggested(
        pull=suggestion.pull,
        role=suggestion.role.value,
        reason=suggestion.reason,
        parameter_count=known.parameter_count,
        download_bytes=known.download_bytes,
        memory_bytes=known.memory_bytes,
        note=known.note,
    )


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """A line of ``pull``: how far it is, or with ``state`` how it ended."""

    name: str
    state: str
    completed_bytes: int | None
    total_bytes: int | None
    fetched_bytes: int | None
    rate_bytes_s: float | None
    eta_s: float | None
    status: str


def progress(name: str, state: str, told: PullProgress | None) -> Progress:
    """Return the progress of a pull as it is told."""
    known = told or PullProgress(completed_bytes=0)
    return Progress(
        name=name,
        state=state,
        completed_bytes=known.completed_bytes if told else None,
        total_bytes=known.total_bytes,
        fetched_bytes=known.fetched_bytes,
        rate_bytes_s=known.rate_bytes_s,
        eta_s=known.eta_s,
        status=known.status,
    )


class Removed(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``rm``."""

    name: str
    freed_bytes: int
    shared_with: tuple[str, ...]


class Unloaded(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``unload``: ``unloaded``, ``deferred`` or ``not_loaded``."""

    name: str
    result: str


class AsOf(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``as-of``: the models, and the first of each role."""

    position: int
    asked: datetime | None
    node: NodeStatus
    models: list[Model]
    recommended: dict[str, Candidate | None]


async def as_of(moment: ReadModel, roles: Iterable[str]) -> AsOf:
    """Return a moment with the first choice for some roles; other tasks run meanwhile.

    Args:
        moment: The moment.
        roles: The roles, by name.
    """
    moment, time_slice = moment.fixed(), TimeSlice()
    models = []
    for status in moment.statuses():
        models.append(model(status, moment))
        await time_slice.checkpoint()
    recommended = {}
    for role in roles:
        recommended[role] = moment.recommend(role)
        await time_slice.checkpoint()
    return AsOf(
        position=moment.position,
        asked=moment.asked,
        node=moment.node_status(),
        models=models,
        recommended=recommended,
    )


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``verify``."""

    events: int
    position: int
    hash: str
    findings: tuple[Finding, ...]
    seconds: float


class BackedUp(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``backup``."""

    path: str
    position: int
    hash: str
    size_bytes: int
    findings: tuple[Finding, ...]


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``restore``; ``replaced`` is where the files before are now."""

    path: str
    position: int
    hash: str
    replaced: str | None
    findings: tuple[Finding, ...]


class Anchored(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``anchor``; ``text`` is the anchor itself."""

    position: int
    hash: str
    root: str
    time: datetime
    text: str


class Refreshed(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``refresh``: the node, and what was recorded just now."""

    node: NodeStatus
    models: int
    runners: int
    recorded: list[HistoryEntry]


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``node``: the node, and whether it was moved just now."""

    node: NodeStatus
    moved: bool


class Graph(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``graph``: the edges of the state diagram, and it in Mermaid."""

    mermaid: str
    transitions: dict[str, int] | None


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``why``: the model, and what its state goes back to."""

    model: Model
    ancestors: tuple[ExplanationEvent, ...]


def why(lineage: Explanation, moment: ReadModel) -> Why:
    """Return a lineage as it is told."""
    return Why(model=model(lineage.status, moment), ancestors=lineage.ancestors)


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``apply --plan``: the steps, and their bytes in all."""

    origin: str
    steps: tuple[Step, ...]
    fetch_bytes: int
    unknown_sizes: int
    frees_bytes: int


def planned(plan: Plan) -> Planned:
    """Return a plan as it is told."""
    return Planned(
        origin=plan.origin,
        steps=plan.steps,
        fetch_bytes=plan.fetch_bytes,
        unknown_sizes=plan.unknown_sizes,
        frees_bytes=plan.frees_bytes,
    )


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """A line of ``apply``: what became of a step (``done``, ``failed`` or ``left``)."""

    step: Step
    state: str
