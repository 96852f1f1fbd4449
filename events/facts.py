"""The facts: the data of every event about a model or a node.

There is one frozen class per event type, named in the past tense. A fact has what
became true; the envelope (``recorded.py``) has who asked for it, when and why. A
changed class needs a new schema number and an upcaster in ``codec.py``, since every
event that was ever written must stay readable.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal, TypeAlias

import msgspec

Setting: TypeAlias = (
    bool | int | float | str | list[bool | int | float | str] | dict[str, str] | None
)
"""A value of a model's configuration, as a JSON type."""


Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=(1 << 53) - 1)]
"""A number of bytes, tokens or parameters, up to the largest integer that every JSON
reader keeps exactly (RFC 8259, section 6): about 9 PB."""


class Fact(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """The base class of all facts."""


class HeldBack(
    msgspec.Struct, frozen=True, kw_only=True, gc=False, forbid_unknown_fields=True
):
    """Changes that were seen but not recorded, since there were too many.

    Attributes:
        changes: Number of changes that were left out.
        seconds: Time over which they happened, seconds.
    """

    changes: int
    seconds: float


class DriftFact(Fact, frozen=True, kw_only=True):
    """The base class of facts about changes by other programs, seen at a refresh.

    Attributes:
        held_back: Changes that were left out before this one; unset if none.
    """

    held_back: HeldBack | msgspec.UnsetType = msgspec.UNSET


class UnreadableFact(Fact, frozen=True, kw_only=True):
    """A placeholder for the data of a recorded event that cannot be read.

    It is never recorded. It is created when reading a damaged log, or one of an older
    version. Projections change the state as the event type implies, and ignore the
    data.

    Attributes:
        data: The stored data as text.
        reason: Why the data cannot be read.
    """

    data: str
    reason: str


class FactSource(StrEnum):
    """Source of what is known about a model, in order of precedence."""

    CONFIGURATION = "configuration"
    SHOW = "show"
    TAGS = "tags"
    REGISTRY = "registry"
    NAME = "name"
    DEFAULT = "default"


class UnloadReason(StrEnum):
    """Why a runner left memory, if known."""

    REQUESTED = "requested"
    EXPIRED = "expired"
    EVICTED = "evicted"
    SERVER_RESTARTED = "server_restarted"
    MODEL_REPLACED = "model_replaced"
    UNKNOWN = "unknown"


class Runner(
    msgspec.Struct, frozen=True, kw_only=True, gc=False, forbid_unknown_fields=True
):
    """A process of the server that holds weights in memory, as in ``/api/ps``.

    Attributes:
        name: Name of the model that it was loaded for; other models of the same
            weights may share it.
        digest: Digest of that model when it was loaded: 64 hexadecimal digits.
        context_length: Context in use, tokens; None if the server is too old to
            report it.
        size_bytes: Total memory, bytes.
        size_vram_bytes: Memory on the GPU, bytes.
        expires_at: When keep-alive ends; a year after 2300 means never.
    """

    name: str
    digest: str
    context_length: Count | None = None
    size_bytes: Count = 0
    size_vram_bytes: Count = 0
    expires_at: datetime | None = None


def is_forever(expires_at: datetime) -> bool:
    """Return whether the expiry of a runner means that it stays in memory.

    The server adds the longest duration of Go, 292 years, for a keep-alive of -1.
    """
    return expires_at.year > _FOREVER_YEAR


_FOREVER_YEAR = 2300


class Capability(
    msgspec.Struct, frozen=True, kw_only=True, gc=False, forbid_unknown_fields=True
):
    """Whether a model has a capability, and how that is known.

    Attributes:
        value: Whether the model has it.
        source: Source of the value.
        evidence: What the source says, in a few words; may be empty.
    """

    value: bool
    source: FactSource
    evidence: str = ""


class ModelDiscovered(DriftFact, frozen=True, kw_only=True):
    """Recorded when the server lists a model that was not present in the log.

    Attributes:
        digest: Digest of the manifest: 64 hexadecimal digits.
        size_bytes: Sum of the layers, bytes; shared layers count in each model.
        remote_host: Host that runs a cloud model; None for a local model.
    """

    digest: str
    size_bytes: Count
    remote_host: str | None = None


class ModelVanished(DriftFact, frozen=True, kw_only=True):
    """Recorded when the server no longer lists a model that Herdbook did not delete."""


class ModelDeleted(Fact, frozen=True, kw_only=True):
    """Recorded when a model was deleted through Herdbook.

    Without digest and size, the model was not on the server, and the failure of its
    pull was dismissed.

    Attributes:
        digest: Digest of the deleted model.
        size_bytes: Size of the deleted model, bytes; shared layers stay on disk.
    """

    digest: str | None = None
    size_bytes: Count | None = None


class PullStarted(Fact, frozen=True, kw_only=True):
    """Recorded before the server is asked to pull a model that is not present.

    Attributes:
        instance: Instance of Herdbook that runs the pull.
        insecure: Whether the registry may be used without TLS.
    """

    instance: str
    insecure: bool = False


class PullProgressed(Fact, frozen=True, kw_only=True):
    """Recorded when 5% or 10 s have passed, whichever is later.

    Attributes:
        completed_bytes: Bytes that the server has.
        total_bytes: Total size of the layers that are known so far, bytes.
        fetched_bytes: Bytes fetched since the start, including repeated ones.
    """

    completed_bytes: Count
    total_bytes: Count | None = None
    fetched_bytes: Count | None = None


class PullCompleted(Fact, frozen=True, kw_only=True):
    """Recorded when the server has reported ``success`` and lists the model.

    Attributes:
        digest: Digest of the manifest: 64 hexadecimal digits.
        size_bytes: Sum of the layers, bytes.
        fetched_bytes: Bytes fetched, including repeated ones.
        duration_s: Duration, seconds.
        remote_host: Host that runs a cloud model; None for a local model.
    """

    digest: str
    size_bytes: Count
    fetched_bytes: Count | None = None
    duration_s: float | None = None
    remote_host: str | None = None


class PullFailed(Fact, frozen=True, kw_only=True):
    """Recorded when a pull ended with an error.

    Attributes:
        kind: Stable code of the error, such as ``disk_full``.
        message: Error message of the server, or a description of the problem.
        completed_bytes: Bytes that the server had.
        total_bytes: Total size, bytes.
    """

    kind: str
    message: str
    completed_bytes: Count | None = None
    total_bytes: Count | None = None


class PullCancelled(Fact, frozen=True, kw_only=True):
    """Recorded when a pull was cancelled; the server keeps the data it has.

    Attributes:
        completed_bytes: Bytes that the server had.
        total_bytes: Total size, bytes.
    """

    completed_bytes: Count | None = None
    total_bytes: Count | None = None


class PullInterrupted(Fact, frozen=True, kw_only=True):
    """Recorded when the instance that ran a pull ended or was stopped before the pull.

    Attributes:
        instance: Instance that ran the pull.
        completed_bytes: Last recorded progress, bytes.
        total_bytes: Total size, bytes.
    """

    instance: str
    completed_bytes: Count | None = None
    total_bytes: Count | None = None


class UpdateStarted(Fact, frozen=True, kw_only=True):
    """Recorded before a model that is present is pulled again.

    Attributes:
        instance: Instance of Herdbook that runs the update.
        insecure: Whether the registry may be used without TLS.
    """

    instance: str
    insecure: bool = False


class UpdateProgressed(Fact, frozen=True, kw_only=True):
    """Recorded like ``PullProgressed``, for an update."""

    completed_bytes: Count
    total_bytes: Count | None = None
    fetched_bytes: Count | None = None


class UpdateFailed(Fact, frozen=True, kw_only=True):
    """Recorded like ``PullFailed``, for an update; the model is unchanged."""

    kind: str
    message: str
    completed_bytes: Count | None = None
    total_bytes: Count | None = None


class UpdateCancelled(Fact, frozen=True, kw_only=True):
    """Recorded like ``PullCancelled``, for an update; the model is unchanged."""

    completed_bytes: Count | None = None
    total_bytes: Count | None = None


class UpdateInterrupted(Fact, frozen=True, kw_only=True):
    """Recorded like ``PullInterrupted``, for an update."""

    instance: str
    completed_bytes: Count | None = None
    total_bytes: Count | None = None


class UpdateUnchanged(Fact, frozen=True, kw_only=True):
    """Recorded when an update ended and the digest did not change.

    Attributes:
        digest: The digest.
        duration_s: Duration, seconds.
    """

    digest: str
    duration_s: float | None = None


class ModelUpdated(DriftFact, frozen=True, kw_only=True):
    """Recorded when the digest of a model changed, by Herdbook or by another program.

    Attributes:
        digest: The new digest.
        previous_digest: The previous digest, if known.
        size_bytes: Sum of the new layers, bytes.
        fetched_bytes: Bytes fetched, if Herdbook ran the update.
        duration_s: Duration in seconds, if Herdbook ran the update.
        remote_host: Host that runs a cloud model; None for a local model.
    """

    digest: str
    previous_digest: str | None = None
    size_bytes: Count
    fetched_bytes: Count | None = None
    duration_s: float | None = None
    remote_host: str | None = None


class LoadStarted(Fact, frozen=True, kw_only=True):
    """Recorded before the server is asked to load a model into memory.

    Attributes:
        instance: Instance of Herdbook that runs the load.
        options: Requested options, such as ``num_ctx``.
        keep_alive: Requested keep-alive; None for the server's default.
    """

    instance: str
    options: dict[str, Setting] = {}
    keep_alive: str | int | float | None = None


class ModelLoaded(DriftFact, frozen=True, kw_only=True):
    """Recorded when a runner of the model's weights is in memory.

    Attributes:
        runner: The runner.
        duration_s: Duration of the load in seconds; None if another program
            loaded the model.
    """

    runner: Runner
    duration_s: float | None = None


class LoadFailed(Fact, frozen=True, kw_only=True):
    """Recorded when the server could not load the model.

    Attributes:
        kind: Stable code of the error, such as ``out_of_memory``.
        message: Error message of the server, or a description of the problem.
    """

    kind: str
    message: str


class LoadCancelled(Fact, frozen=True, kw_only=True):
    """Recorded when a load was cancelled."""


class LoadInterrupted(Fact, frozen=True, kw_only=True):
    """Recorded when the instance that ran a load ended or was stopped before the load.

    Attributes:
        instance: Instance that ran the load.
    """

    instance: str


class CancelRequested(Fact, frozen=True, kw_only=True):
    """Recorded when an operation of another instance is to be cancelled.

    The instance that runs the operation cancels it, and records its end as for any
    other cancellation. An operation that ends first ends as it does.

    Attributes:
        activity: What is to be cancelled.
        instance: Instance of Herdbook that runs it.
    """

    activity: Literal["pull", "update", "load", "reload"]
    instance: str


class ReloadStarted(Fact, frozen=True, kw_only=True):
    """Recorded when an instance starts to load a loaded model with other options.

    It is recorded before the request if the options need another context than the
    runner has. Otherwise only the answer shows whether the server replaces the runner:
    then it is recorded if the answer takes longer than a second, or with the end.

    Attributes:
        instance: Instance of Herdbook that runs the reload.
        options: Options for the server, such as ``num_ctx``.
        keep_alive: Requested keep-alive; None uses the server's default.
    """

    instance: str
    options: dict[str, Setting] = {}
    keep_alive: str | int | float | None = None


class ReloadCompleted(Fact, frozen=True, kw_only=True):
    """Recorded when the server has completed a reload.

    Attributes:
        runner: The runner now, which differs from the one before.
        duration_s: Duration of the reload in seconds.
    """

    runner: Runner
    duration_s: float


class ReloadUnchanged(Fact, frozen=True, kw_only=True):
    """Recorded when a reload ended and the runner is the same as before.

    Attributes:
        expires_at: When keep-alive ends now; None if the server does not report it.
        duration_s: How long the server took to answer, seconds.
    """

    expires_at: datetime | None
    duration_s: float


class ReloadFailed(Fact, frozen=True, kw_only=True):
    """Recorded when a reload failed, and the model is still loaded as before.

    If the previous runner is no longer in memory, ``ModelUnloaded``, ``LoadStarted``
    and ``LoadFailed`` are recorded instead.

    Attributes:
        kind: Stable code of the error, such as ``out_of_memory``.
        message: Error message of the server, or a description of the problem.
    """

    kind: str
    message: str


class ReloadCancelled(Fact, frozen=True, kw_only=True):
    """Recorded when a reload was cancelled.

    The next refresh finds out whether the previous runner is still in memory.
    """


class ReloadInterrupted(Fact, frozen=True, kw_only=True):
    """Recorded when the instance that ran a reload ended or was stopped before it.

    Attributes:
        instance: Instance that ran the reload.
    """

    instance: str


class RunnerChanged(DriftFact, frozen=True, kw_only=True):
    """Recorded when the runner was replaced, or its properties changed.

    Reloads by Herdbook are recorded as ``ReloadStarted`` and ``ReloadCompleted``.

    Attributes:
        runner: The runner as in ``/api/ps`` now.
    """

    runner: Runner


class KeepAliveRenewed(Fact, frozen=True, kw_only=True):
    """Recorded when a load of a loaded model changed only when its runner expires.

    Attributes:
        expires_at: When keep-alive ends now; a year after 2300 means never.
        keep_alive: Requested keep-alive; None if none was requested.
    """

    expires_at: datetime
    keep_alive: str | int | float | None = None


class ModelUnloaded(DriftFact, frozen=True, kw_only=True):
    """Recorded when the runner of the model's weights is no longer in memory.

    Attributes:
        reason: Why it was unloaded, if known.
        evicted_by: Model that was loaded in its place, for an eviction.
    """

    reason: UnloadReason
    evicted_by: str | None = None


class UseOutcome(StrEnum):
    """How a request to a model ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    CLIENT_LEFT = "client_left"


class ModelUsed(Fact, frozen=True, kw_only=True):
    """Recorded when a client reports a use, the gateway relayed one, or one was seen.

    The gateway records requests that the model began to answer. All fields from
    ``endpoint`` to ``count`` are its measurements, and are missing otherwise.
    Requests of one client that end within a second are recorded together.

    A use with the cause ``observed`` was seen in the list of runners: a request moves
    the expiry of the runner. It stands for one or more requests by unknown clients.
    Its event has the time at which the last of them ended, as far as that is known.

    Attributes:
        purpose: Purpose of the use, as given by the client; may be empty.
        endpoint: Path that was requested, such as ``/api/chat``.
        client: Name of the client's token, or its address without tokens.
        role: Role that was requested instead of a model.
        started_at: When the request began, or the first of several.
        duration_s: Duration until the end of the answer, seconds; the sum of several.
        first_token_s: Time to the first byte of the answer, seconds; the sum of
            several.
        prompt_tokens: Tokens of the prompt, as the server reports them; the sum of
            several.
        output_tokens: Tokens of the answer, as the server reports them; the sum of
            several.
        estimated_tokens: Estimated tokens of what the server did not report, such as of
            an answer that the client did not wait for; the sum of several.
        outcome: How the request ended.
        failure: Stable code of the error, if it failed.
        loaded_by_it: Whether the request loaded the model, if known. An observed use
            that loaded the model may have been nothing but the load.
        count: Number of requests that are recorded together.
        uncertainty_s: How much earlier than the time of the event an observed use may
            have ended, seconds.
        expires_at: When the runner expires since an observed use.
    """

    purpose: str = ""
    endpoint: str | msgspec.UnsetType = msgspec.UNSET
    client: str | msgspec.UnsetType = msgspec.UNSET
    role: str | msgspec.UnsetType = msgspec.UNSET
    started_at: datetime | msgspec.UnsetType = msgspec.UNSET
    duration_s: float | msgspec.UnsetType = msgspec.UNSET
    first_token_s: float | msgspec.UnsetType = msgspec.UNSET
    prompt_tokens: Count | msgspec.UnsetType = msgspec.UNSET
    output_tokens: Count | msgspec.UnsetType = msgspec.UNSET
    estimated_tokens: Count | msgspec.UnsetType = msgspec.UNSET
    outcome: UseOutcome | msgspec.UnsetType = msgspec.UNSET
    failure: str | msgspec.UnsetType = msgspec.UNSET
    loaded_by_it: bool | msgspec.UnsetType = msgspec.UNSET
    count: Count | msgspec.UnsetType = msgspec.UNSET
    uncertainty_s: float | msgspec.UnsetType = msgspec.UNSET
    expires_at: datetime | msgspec.UnsetType = msgspec.UNSET


def uses_of(fact: Fact) -> int:
    """Return how many uses an event of the type ``ModelUsed`` stands for.

    An event that cannot be read stands for one.
    """
    count = fact.count if isinstance(fact, ModelUsed) else 1
    return 1 if count is msgspec.UNSET else count


class UseFailed(Fact, frozen=True, kw_only=True):
    """Recorded when a request through the gateway ended before the model answered.

    The state does not change: such a request does not show whether the model is in
    memory.

    Attributes:
        endpoint: Path that was requested, such as ``/api/chat``.
        client: Name of the client's token, or its address without tokens.
        role: Role that was requested instead of a model.
        started_at: When the request began, or the first of several.
        duration_s: Duration until the end of the request, seconds; the sum of several.
        estimated_tokens: Estimated tokens of the prompt, if the client disconnected;
            the sum of several.
        outcome: ``failed`` or ``client_left``.
        failure: Stable code of the error; empty if the client disconnected.
        count: Number of requests that are recorded together.
    """

    endpoint: str
    client: str
    role: str | msgspec.UnsetType = msgspec.UNSET
    started_at: datetime
    duration_s: float
    estimated_tokens: Count | msgspec.UnsetType = msgspec.UNSET
    outcome: UseOutcome
    failure: str = ""
    count: Count = 1


class CapabilitiesDetected(Fact, frozen=True, kw_only=True):
    """Recorded when the capabilities of a model were detected or changed.

    Attributes:
        digest: Digest of the model; None if it is not present.
        weights: Digest of the weights file; None if there is no local one.
        family: Architecture, as reported by the server.
        parameter_count: Number of parameters.
        quantization: As reported by the server, such as ``Q4_K_M``.
        context_trained: Maximum context that the model was trained for, tokens.
        context_source: Source of ``context_trained``.
        context_default: ``num_ctx`` of the model's own parameters, if set.
        temperature: Recommended temperature, if known.
        temperature_source: Source of ``temperature``.
        parameters: The model's own parameters, by name; a list if it repeats one.
        capabilities: Capabilities by name, each with its source.
        ranks: Rank in the catalogue by role, from 1.
    """

    digest: str | None = None
    weights: str | None = None
    family: str | None = None
    parameter_count: Count | None = None
    quantization: str | None = None
    context_trained: Count
    context_source: FactSource
    context_default: Count | None = None
    temperature: float | None = None
    temperature_source: FactSource | None = None
    parameters: dict[str, Setting] = {}
    capabilities: dict[str, Capability]
    ranks: dict[str, Count] = {}


class ConfigurationChanged(Fact, frozen=True, kw_only=True):
    """Recorded when the settings of a model were changed.

    Attributes:
        set: Settings with their new values.
        unset: Settings that were removed.
        was: Previous values of the changed settings, without those that had none.
        note: Reason given by the user; may be empty.
    """

    set: dict[str, Setting] = {}
    unset: tuple[str, ...] = ()
    was: dict[str, Setting] = {}
    note: str = ""


class NodeReached(DriftFact, frozen=True, kw_only=True):
    """Recorded when a node answers for the first time, answers again, or has changed.

    Attributes:
        version: Version of the server, as it reports it.
        url: Address of the node.
    """

    version: str
    url: str


class NodeLost(Fact, frozen=True, kw_only=True):
    """Recorded when a node no longer answers.

    Attributes:
        kind: Stable code of the error, such as ``node_unreachable``.
        message: Description of the problem.
    """

    kind: str
    message: str


class NodeMoved(Fact, frozen=True, kw_only=True):
    """Recorded when a user changes the address of a node.

    Attributes:
        from_url: The previous address.
        to_url: The new address.
    """

    from_url: str
    to_url: str


class NodeSettings(
    msgspec.Struct, frozen=True, kw_only=True, gc=False, forbid_unknown_fields=True
):
    """How Herdbook uses a node.

    Attributes:
        key_env: Environment variable with the API key of the server; empty for none.
            The key itself is never recorded.
        tags: Properties of the node that a user set, such as ``{"ram": "64GB"}``.
        weight: Share of the requests that the node gets, relative to the others.
        models: Patterns of the models that the node may have, such as ``qwen*``; empty
            for all.
        prefer: Patterns of the models that should go to this node first.
        max_model_bytes: Size of the largest model that the node may have, bytes; None
            for any.
        drained: Whether the node gets no new requests and no new models.
    """

    key_env: str = ""
    tags: dict[str, str] = msgspec.field(default_factory=dict)
    weight: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 1.0
    models: tuple[str, ...] = ()
    prefer: tuple[str, ...] = ()
    max_model_bytes: Count | None = None
    drained: bool = False


class NodeAdded(Fact, frozen=True, kw_only=True):
    """Recorded when a user adds a node to those that Herdbook manages.

    Attributes:
        url: Address of the node.
    """

    url: str


class NodeConfigured(Fact, frozen=True, kw_only=True):
    """Recorded when a user changes how Herdbook uses a node.

    Attributes:
        settings: All settings of the node from now on.
    """

    settings: NodeSettings


class NodeRemoved(Fact, frozen=True, kw_only=True):
    """Recorded when a user removes a node. Its models stay on its server."""


class UsesNotRecorded(Fact, frozen=True, kw_only=True):
    """Recorded when uses through the gateway could not be recorded for some time.

    Attributes:
        count: Number of requests that are missing in the log.
        since: When the first of them ended.
        until: When the last of them ended.
        reason: Why they could not be recorded.
    """

    count: Count
    since: datetime
    until: datetime
    reason: str


class AnchorReceived(Fact, frozen=True, kw_only=True):
    """Recorded when another Herdbook sent an anchor of its log.

    Attributes:
        origin: Which log: ``herdbook/`` and the id of its first event.
        position: Number of events in that log when the anchor was made.
        text: The whole anchor, with its signatures.
    """

    origin: str
    position: Count
    text: str


class LogArchived(Fact, frozen=True, kw_only=True):
    """Recorded when the oldest events of the log moved to an archive.

    Attributes:
        first: Position of the first event in the archive.
        last: Position of the last one, the boundary.
        hash: Hash of the event at the boundary.
        root: Root of the Merkle tree over all events up to the boundary.
        origin: Which log: ``herdbook/`` and the id of its first event.
        file: Name of the archive's file.
        sha256: SHA-256 of the file.
        views: Checksum of the state of each view at the boundary, by name and format
            number: ``status/4``.
        signature: Signature over all of this; empty without a key.
    """

    first: Count
    last: Count
    hash: str
    root: str
    origin: str
    file: str
    sha256: str
    views: dict[str, str]
    signature: str = ""


FACTS: tuple[type[Fact], ...] = (
    ModelDiscovered,
    ModelVanished,
    ModelDeleted,
    PullStarted,
    PullProgressed,
    PullCompleted,
    PullFailed,
    PullCancelled,
    PullInterrupted,
    UpdateStarted,
    UpdateProgressed,
    UpdateFailed,
    UpdateCancelled,
    UpdateInterrupted,
    UpdateUnchanged,
    ModelUpdated,
    LoadStarted,
    ModelLoaded,
    LoadFailed,
    LoadCancelled,
    LoadInterrupted,
    CancelRequested,
    ReloadStarted,
    ReloadCompleted,
    ReloadUnchanged,
    ReloadFailed,
    ReloadCancelled,
    ReloadInterrupted,
    RunnerChanged,
    KeepAliveRenewed,
    ModelUnloaded,
    ModelUsed,
    UseFailed,
    CapabilitiesDetected,
    ConfigurationChanged,
    NodeReached,
    NodeLost,
    NodeMoved,
    NodeAdded,
    NodeConfigured,
    NodeRemoved,
    UsesNotRecorded,
    AnchorReceived,
    LogArchived,
)
"""All facts."""

AnyFact: TypeAlias = (
    ModelDiscovered
    | ModelVanished
    | ModelDeleted
    | PullStarted
    | PullProgressed
    | PullCompleted
    | PullFailed
    | PullCancelled
    | PullInterrupted
    | UpdateStarted
    | UpdateProgressed
    | UpdateFailed
    | UpdateCancelled
    | UpdateInterrupted
    | UpdateUnchanged
    | ModelUpdated
    | LoadStarted
    | ModelLoaded
    | LoadFailed
    | LoadCancelled
    | LoadInterrupted
    | CancelRequested
    | ReloadStarted
    | ReloadCompleted
    | ReloadUnchanged
    | ReloadFailed
    | ReloadCancelled
    | ReloadInterrupted
    | RunnerChanged
    | KeepAliveRenewed
    | ModelUnloaded
    | ModelUsed
    | UseFailed
    | CapabilitiesDetected
    | ConfigurationChanged
    | NodeReached
    | NodeLost
    | NodeMoved
    | NodeAdded
    | NodeConfigured
    | NodeRemoved
    | UsesNotRecorded
    | AnchorReceived
    | UnreadableFact
)
"""The data of a recorded event: one class per event type, or ``UnreadableFact``.

Use ``isinstance`` or ``match`` to narrow it."""
