"""The JSON output of ``--json``, one structure per command, stable in a major version.

Sizes are in bytes, durations in seconds, and times in ISO 8601 with ``Z``. Unknown
values are ``null``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec

from herdbook.core import (
    Activity,
    Candidate,
    Capability,
    FactSource,
    Finding,
    HistoryEntry,
    ModelRole,
    ModelState,
    ModelStatus,
    NodeStatus,
    PullProgress,
    ReadModel,
    Recommendation,
    Runner,
    Suggestion,
)
from herdbook.core.concurrency.time_slice import TimeSlice
from herdbook.core.desired.free_space import FreeSpace, Group
from herdbook.core.desired.plan import Plan, Step
from herdbook.core.fleet.nodes_file import NodeStep
from herdbook.core.history.explain import Explanation, ExplanationEvent
from herdbook.events.facts import Setting
from herdbook.presentation.loaded_models import OfSeveral
from herdbook.projections.status import Failure, Work


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """The trained, configured and effective context of a model, in tokens."""

    trained: int | None
    source: FactSource | None
    configured: int | None
    in_effect: int | None


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A model, as ``ls``, ``show`` and commands that change it print it."""

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
    parameters: dict[str, Setting]
    settings: dict[str, Setting]
    runner: Runner | None
    uses: int
    last_used_at: datetime | None
    last_used_by: str | None
    last_used_within_s: float
    last_failure: Failure | None
    work: Work | None
    update: Work | None


def model(status: ModelStatus, models: ReadModel) -> Model:
    """Return the JSON structure of a model.

    Args:
        status: The model.
        models: The read model that the status is from.
    """
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
        capabilities=(
            status.capabilities if status.detected else models.capabilities(status.name)
        ),
        parameters=status.parameters,
        settings=status.settings,
        runner=status.runner,
        uses=status.uses,
        last_used_at=status.last_used_at,
        last_used_by=status.last_used_by,
        last_used_within_s=status.last_used_within_s,
        last_failure=status.last_failure,
        work=status.work,
        update=status.update,
    )


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The output of ``config``: the settings, and the options of requests."""

    name: str
    settings: dict[str, Setting]
    options: dict[str, Setting]
    keep_alive: str | int | float | None


class Suggested(msgspec.Struct, frozen=True, kw_only=True):
    """An entry in the output of ``suggest``."""

    pull: str
    role: str
    reason: str
    parameter_count: int | None
    download_bytes: int | None
    memory_bytes: int | None
    note: str


def suggested(suggestion: Suggestion) -> Suggested:
    """Return the JSON structure of a suggestion."""
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
    """A line of ``pull``: its progress, or the final ``state``."""

    name: str
    state: str
    completed_bytes: int | None
    total_bytes: int | None
    fetched_bytes: int | None
    rate_bytes_s: float | None
    eta_s: float | None
    status: str


def progress(name: str, state: str, latest: PullProgress | None) -> Progress:
    """Return the JSON structure of the progress of a pull."""
    known = latest or PullProgress(completed_bytes=0)
    return Progress(
        name=name,
        state=state,
        completed_bytes=known.completed_bytes if latest else None,
        total_bytes=known.total_bytes,
        fetched_bytes=known.fetched_bytes,
        rate_bytes_s=known.rate_bytes_s,
        eta_s=known.eta_s,
        status=known.status,
    )


def of_several(node: str | None) -> OfSeveral:
    """Return the name of a node of several; unset for the only one."""
    return msgspec.UNSET if node is None else node


class Removed(msgspec.Struct, frozen=True, kw_only=True):
    """The output of ``rm``."""

    name: str
    node: OfSeveral = msgspec.UNSET
    freed_bytes: int
    shared_with: tuple[str, ...]


class Unloaded(msgspec.Struct, frozen=True, kw_only=True):
    """The output of ``unload``: ``unloaded``, ``deferred`` or ``not_loaded``."""

    name: str
    node: OfSeveral = msgspec.UNSET
    result: str


class Cancelled(msgspec.Struct, frozen=True, kw_only=True):
    """The output of ``cancel``: ``cancelled``, ``ended`` before, or ``not_running``."""

    name: str
    node: OfSeveral = msgspec.UNSET
    activity: str | None
    result: str


class AsOf(msgspec.Struct, frozen=True, kw_only=True):
    """The output of ``as-of``: the models, and the first choice for each role."""

    position: int
    asked: datetime | None
    node: NodeStatus
    models: list[Model]
    recommended: dict[str, Candidate | None]


async def as_of(
    read_model: ReadModel, roles: Iterable[str], models: list[Model] | None = None
) -> AsOf:
    """Return the JSON structure of a read model, yielding to other tasks meanwhile.

    Args:
        read_model: The read model.
        roles: Names of the roles to recommend a model for.
        models: The structures of the models, if they are known.
    """
    fixed, time_slice = read_model.fixed(), TimeSlice()
    if models is None:
        models = []
        for status in fixed.statuses():
            models.append(model(status, fixed))
            await time_slice.checkpoint()
    recommended = {}
    for role in roles:
        recommended[role] = fixed.recommend(role)
        await time_slice.checkpoint()
    return AsOf(
        position=fixed.position,
        asked=fixed.asked,
        node=fixed.node_status(),
        models=models,
        recommended=recommended,
    )


class AsOfNodes(msgspec.Struct, frozen=True, kw_only=True):
    """The output of ``as-of`` for several nodes.

    ``recommended`` has the first choice on any of them for each role.
    """

    position: int
    asked: datetime | None
    nodes: list[NodeStatus]
    models: list[Model]
    recommended: dict[str, Candidate | None]


def recommendation(
    read_models: Sequence[ReadModel], role: ModelRole | str
) -> Recommendation:
    """Return the models of some nodes for a role, best first, and those rejected.

    Raises:
        UnknownRoleError: The role does not exist.
    """
    if len(read_models) == 1:
        return read_models[0].explain(role)
    nodes = {one.node for one in read_models}
    found = read_models[0].explain_everywhere(role)
    return Recommendation(
        role=found.role,
        chosen=tuple(one for one in found.chosen if one.node in nodes),
        passed_over=tuple(one for one in found.passed_over if one.node in nodes),
    )


async def as_of_nodes(
    read_models: Sequence[ReadModel],
    roles: Iterable[str],
    models: Sequence[list[Model] | None] | None = None,
) -> AsOfNodes:
    """Return the JSON structure of the read models of several nodes.

    Args:
        read_models: The read models, of one position.
        roles: Names of the roles to recommend a model for.
        models: The structures of the models of each, as far as they are known.
    """
    known = models or [None for _ in read_models]
    each = [
        await as_of(one, (), structures)
        for one, structures in zip(read_models, known, strict=True)
    ]
    recommended = {}
    for role in roles:
        chosen = recommendation(read_models, role).chosen
        recommended[role] = chosen[0] if chosen else None
    return AsOfNodes(
        position=each[0].position,
        asked=each[0].asked,
        nodes=[one.node for one in each],
        models=[model for one in each for model in one.models],
        recommended=recommended,
    )


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """The output of ``verify``.

    ``omitted`` counts findings that are not listed, ``anchors`` those compared.
    """

    events: int
    position: int
    hash: str
    findings: tuple[Finding, ...]
    omitted: int
    missing: str
    anchors: int
    signatures_checked: bool
    seconds: float


class FreedSpace(msgspec.Struct, frozen=True, kw_only=True):
    """The output of ``free``; ``deleted`` has the names of deleted models."""

    wanted_bytes: int
    frees_bytes: int
    is_enough: bool
    chosen: tuple[Group, ...]
    alternatives: tuple[Group, ...]
    deleted: list[str]


def freed_space(proposal: FreeSpace, deleted: Sequence[str] = ()) -> FreedSpace:
    """Convert a proposal to its JSON schema.

    Args:
        proposal: The proposal.
        deleted: The models of it that were deleted.
    """
    return FreedSpace(
        wanted_bytes=proposal.wanted_bytes,
        frees_bytes=proposal.frees_bytes,
        is_enough=proposal.is_enough,
        chosen=proposal.chosen,
        alternatives=proposal.alternatives,
        deleted=list(deleted),
    )


class BackedUp(msgspec.Struct, frozen=True, kw_only=True):
    """The output of ``backup``."""

    path: str
    position: int
    hash: str
    size_bytes: int
    findings: tuple[Finding, ...]
    archives: tuple[str, ...]


class Archived(msgspec.Struct, frozen=True, kw_only=True):
    """The output of ``archive``.

    Attributes:
        path: The file.
        first: Position of its first event.
        last: Position of its last event.
        events: Number of its events; 0 if there were too few.
        size_bytes: Size of the file.
        sha256: SHA-256 of the file.
        made: Whether it was made; false for ``--dry-run``.
        completed: Events of an interrupted archive that were deleted.
        kept_size: Why the log's file keeps its size; empty if it shrank.
    """

    path: str
    first: int
    last: int
    events: int
    size_bytes: int
    sha256: str
    made: bool
    completed: int
    kept_size: str


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """The output of ``restore``; ``replaced`` is where the files before are now."""

    path: str
    position: int
    hash: str
    replaced: str | None
    findings: tuple[Finding, ...]
    missing: str


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """The output of ``export`` to a file; position and hash are of its last event."""

    path: str
    events: int
    position: int
    hash: str
    size_bytes: int


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """The output of ``import``: the log, and how many events it did not have before."""

    path: str
    added: int
    present: int
    position: int
    hash: str


class Copied(msgspec.Struct, frozen=True, kw_only=True):
    """The output of ``copy``: both logs, and the end of the one that was written."""

    source: str
    target: str
    added: int
    present: int
    position: int
    hash: str


class CheckedExport(msgspec.Struct, frozen=True, kw_only=True):
    """The output of ``import --check``; position and hash are those of the log."""

    path: str
    events: int
    complete: bool
    after: int
    until: int
    streams: tuple[str, ...]
    types: tuple[str, ...]
    position: int
    hash: str
    anchor: str


class Anchored(msgspec.Struct, frozen=True, kw_only=True):
    """The output of ``anchor``; ``text`` is the anchor itself."""

    position: int
    hash: str
    root: str
    time: datetime
    text: str


class Refreshed(msgspec.Struct, frozen=True, kw_only=True):
    """The output of ``refresh``: the node, and the events that it recorded."""

    node: NodeStatus
    models: int
    runners: int
    recorded: list[HistoryEntry]


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """The output of ``node``: the node, and whether its address was changed."""

    node: NodeStatus
    moved: bool


class NodeChange(msgspec.Struct, frozen=True, kw_only=True):
    """An entry in the output of ``node apply``: a change, and whether it was made."""

    step: NodeStep
    done: bool


class Graph(msgspec.Struct, frozen=True, kw_only=True):
    """The output of ``graph``: the state diagram, and the counts of its edges."""

    mermaid: str
    transitions: dict[str, int] | None


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """The output of ``why``: the model, and the events that explain its state."""

    model: Model
    ancestors: tuple[ExplanationEvent, ...]


def why(explanation: Explanation, models: ReadModel) -> Why:
    """Return the JSON structure of an explanation."""
    return Why(model=model(explanation.status, models), ancestors=explanation.ancestors)


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """The output of ``apply --plan``: the steps, and their total bytes."""

    origin: str
    steps: tuple[Step, ...]
    fetch_bytes: int
    unknown_sizes: int
    frees_bytes: int


def planned(plan: Plan) -> Planned:
    """Return the JSON structure of a plan."""
    return Planned(
        origin=plan.origin,
        steps=plan.steps,
        fetch_bytes=plan.fetch_bytes,
        unknown_sizes=plan.unknown_sizes,
        frees_bytes=plan.frees_bytes,
    )


class PlannedOnNode(Planned, frozen=True, kw_only=True):
    """The steps of one node, in the output of ``apply --plan`` for several nodes."""

    node: str


def planned_on(node: str, plan: Plan) -> PlannedOnNode:
    """Return the JSON structure of the plan of a node."""
    fields = msgspec.structs.asdict(planned(plan))
    return PlannedOnNode(node=node, **fields)


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """A line of ``apply``: the outcome of a step (``done``, ``failed`` or ``left``).

    ``node`` is there if there are several nodes.
    """

    step: Step
    state: str
    node: str | msgspec.UnsetType = msgspec.UNSET
