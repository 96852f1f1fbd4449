"""The facts: what can be recorded about a model or a node.

One frozen class per fact, named in the past tense. A fact says what became true;
who asked, when and why stands in the envelope (``recorded.py``). Changing a
class means a new schema number and an upcaster in ``codec.py``: what is written
once is read for ever.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, TypeAlias

import msgspec

Setting: TypeAlias = (
    bool | int | float | str | list[bool | int | float | str] | dict[str, str] | None
)
"""A value of a model's configuration, as JSON has it."""


Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=(1 << 53) - 1)]
"""Bytes, tokens or parameters. The largest is what every JSON reader keeps exactly
(RFC 8259, section 6), about 9 PB."""


class Fact(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """The root of all facts."""


class HeldBack(
    msgspec.Struct, frozen=True, kw_only=True, gc=False, forbid_unknown_fields=True
):
    """Changes that were seen and not recorded, since there were too many of them.

    Attributes:
        changes: How many were left out.
        seconds: Over how many seconds.
    """

    changes: int
    seconds: float


class DriftFact(Fact, frozen=True, kw_only=True):
    """The root of facts about what others did, seen at a refresh.

    Attributes:
        held_back: What was left out before this one; unset where nothing was.
    """

    held_back: HeldBack | msgspec.UnsetType = msgspec.UNSET


class UnreadableFact(Fact, frozen=True, kw_only=True):
    """Stands for the data of a recorded event that cannot be read.

    Nothing records it: it is made while reading a log that an older version wrote, or
    that is damaged. Projections move the state as the event's type says, and take in
    none of its data.

    Attributes:
        data: The data as they are in the log, as text.
        reason: Why they cannot be read.
    """

    data: str
    reason: str


class FactSource(StrEnum):
    """Where a fact about a model's abilities comes from, the strongest first."""

    CONFIGURATION = "configuration"
    SHOW = "show"
    TAGS = "tags"
    REGISTRY = "registry"
    NAME = "name"
    DEFAULT = "default"


class UnloadReason(StrEnum):
    """Why a runner left memory, as far as it can be known."""

    REQUESTED = "requested"
    EXPIRED = "expired"
    EVICTED = "evicted"
    SERVER_RESTARTED = "server_restarted"
    MODEL_REPLACED = "model_replaced"
    UNKNOWN = "unknown"


class Runner(
    msgspec.Struct, frozen=True, kw_only=True, gc=False, forbid_unknown_fields=True
):
    """A process of the server that holds weights in memory, as ``/api/ps`` has it.

    Attributes:
        name: The name that it was first loaded by; another model may share it.
        digest: Digest of that model at that time: 64 hexadecimal digits.
        context_length: Context in effect, in tokens; None where an older server
            does not tell.
        size_bytes: Memory in all, bytes.
        size_vram_bytes: The part of it on the GPU, bytes.
        expires_at: When keep-alive ends; a year beyond 2300 means never.
    """

    name: str
    digest: str
    context_length: Count | None = None
    size_bytes: Count = 0
    size_vram_bytes: Count = 0
    expires_at: datetime | None = None


class Capability(
    msgspec.Struct, frozen=True, kw_only=True, gc=False, forbid_unknown_fields=True
):
    """Whether a model can do a thing, and how that is known.

    Attributes:
        value: Whether it can.
        source: Where that comes from.
        evidence: What was seen there, in a few words; may be empty.
    """

    value: bool
    source: FactSource
    evidence: str = ""


class ModelDiscovered(DriftFact, frozen=True, kw_only=True):
    """Recorded when the server lists a model that the log did not have there.

    Attributes:
        digest: Digest of its manifest: 64 hexadecimal digits.
        size_bytes: Sum of its layers, bytes; shared layers count in each model.
        remote_host: Where it runs if it is a cloud model, else None.
    """

    digest: str
    size_bytes: Count
    remote_host: str | None = None


class ModelVanished(DriftFact, frozen=True, kw_only=True):
    """Recorded when the server no longer lists a model, and we did not delete it."""


class ModelDeleted(Fact, frozen=True, kw_only=True):
    """Recorded when a model was deleted through Herdbook.

    Attributes:
        digest: What it was.
        size_bytes: Its size, bytes; what other models share of it stays on disk.
    """

    digest: str | None = None
    size_bytes: Count | None = None


class PullStarted(Fact, frozen=True, kw_only=True):
    """Recorded before the server is asked for a model that is not there.

    Attributes:
        instance: The instance of Herdbook that is at work.
        insecure: Whether the registry may be asked without TLS.
    """

    instance: str
    insecure: bool = False


class PullProgressed(Fact, frozen=True, kw_only=True):
    """Recorded when 5 % or 10 s have passed, whichever is later.

    Attributes:
        completed_bytes: What the server has of it, bytes.
        total_bytes: All of it, as far as layers are known, bytes.
        fetched_bytes: Bytes fetched since the start, those fetched twice included.
    """

    completed_bytes: Count
    total_bytes: Count | None = None
    fetched_bytes: Count | None = None


class PullCompleted(Fact, frozen=True, kw_only=True):
    """Recorded when the server has said ``success`` and lists the model.

    Attributes:
        digest: Digest of its manifest: 64 hexadecimal digits.
        size_bytes: Sum of its layers, bytes.
        fetched_bytes: Bytes fetched, those fetched twice included.
        duration_s: Seconds from start to end.
        remote_host: Where it runs if it is a cloud model, else None.
    """

    digest: str
    size_bytes: Count
    fetched_bytes: Count | None = None
    duration_s: float | None = None
    remote_host: str | None = None


class PullFailed(Fact, frozen=True, kw_only=True):
    """Recorded when a pull ended without success, and nobody asked for that.

    Attributes:
        kind: The error's stable word, such as ``disk_full``.
        message: What the server said, or what is wrong, for people.
        completed_bytes: What the server had of it then, bytes.
        total_bytes: All of it, bytes.
    """

    kind: str
    message: str
    completed_bytes: Count | None = None
    total_bytes: Count | None = None


class PullCancelled(Fact, frozen=True, kw_only=True):
    """Recorded when a pull was ended on request; the server keeps what it has.

    Attributes:
        completed_bytes: What the server had of it then, bytes.
        total_bytes: All of it, bytes.
    """

    completed_bytes: Count | None = None
    total_bytes: Count | None = None


class PullInterrupted(Fact, frozen=True, kw_only=True):
    """Recorded when the instance that pulled is gone, or stopped in the middle.

    Attributes:
        instance: The instance that was at work.
        completed_bytes: What was last recorded of it, bytes.
        total_bytes: All of it, bytes.
    """

    instance: str
    completed_bytes: Count | None = None
    total_bytes: Count | None = None


class UpdateStarted(Fact, frozen=True, kw_only=True):
    """Recorded before a model that is present is pulled again.

    Attributes:
        instance: The instance of Herdbook that is at work.
        insecure: Whether the registry may be asked without TLS.
    """

    instance: str
    insecure: bool = False


class UpdateProgressed(Fact, frozen=True, kw_only=True):
    """Recorded like ``PullProgressed``, for an update."""

    completed_bytes: Count
    total_bytes: Count | None = None
    fetched_bytes: Count | None = None


class UpdateFailed(Fact, frozen=True, kw_only=True):
    """Recorded like ``PullFailed``, for an update; the model stays as it was."""

    kind: str
    message: str
    completed_bytes: Count | None = None
    total_bytes: Count | None = None


class UpdateCancelled(Fact, frozen=True, kw_only=True):
    """Recorded like ``PullCancelled``, for an update; the model stays as it was."""

    completed_bytes: Count | None = None
    total_bytes: Count | None = None


class UpdateInterrupted(Fact, frozen=True, kw_only=True):
    """Recorded like ``PullInterrupted``, for an update."""

    instance: str
    completed_bytes: Count | None = None
    total_bytes: Count | None = None


class UpdateUnchanged(Fact, frozen=True, kw_only=True):
    """Recorded when an update ended and the digest is what it was.

    Attributes:
        digest: That digest.
        duration_s: Seconds from start to end.
    """

    digest: str
    duration_s: float | None = None


class ModelUpdated(DriftFact, frozen=True, kw_only=True):
    """Recorded when a name has another digest than before, by us or by others.

    Attributes:
        digest: The new digest.
        previous_digest: The one before, as far as it is known.
        size_bytes: Sum of the new layers, bytes.
        fetched_bytes: Bytes fetched, where it was our update.
        duration_s: Seconds from start to end, where it was our update.
        remote_host: Where it runs if it is a cloud model, else None.
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
        instance: The instance of Herdbook that is at work.
        options: The options asked for, ``num_ctx`` among them.
        keep_alive: The keep-alive asked for; None leaves it to the server.
    """

    instance: str
    options: dict[str, Setting] = {}
    keep_alive: str | int | float | None = None


class ModelLoaded(DriftFact, frozen=True, kw_only=True):
    """Recorded when a runner of the model's weights is in memory.

    Attributes:
        runner: That runner.
        duration_s: Seconds that our load took; None where others loaded it.
    """

    runner: Runner
    duration_s: float | None = None


class LoadFailed(Fact, frozen=True, kw_only=True):
    """Recorded when the server could not load the model.

    Attributes:
        kind: The error's stable word, such as ``out_of_memory``.
        message: What the server said, or what is wrong, for people.
    """

    kind: str
    message: str


class LoadCancelled(Fact, frozen=True, kw_only=True):
    """Recorded when a load was ended on request."""


class LoadInterrupted(Fact, frozen=True, kw_only=True):
    """Recorded when the instance that loaded is gone, or stopped in the middle.

    Attributes:
        instance: The instance that was at work.
    """

    instance: str


class RunnerChanged(DriftFact, frozen=True, kw_only=True):
    """Recorded when the runner in memory is another, or has other properties.

    Attributes:
        runner: What ``/api/ps`` shows now.
    """

    runner: Runner


class ModelUnloaded(DriftFact, frozen=True, kw_only=True):
    """Recorded when no runner of the model's weights is in memory any more.

    Attributes:
        reason: Why, as far as it can be known.
        evicted_by: The model that was loaded in its place, where that is why.
    """

    reason: UnloadReason
    evicted_by: str | None = None


class ModelUsed(Fact, frozen=True, kw_only=True):
    """Recorded when a caller says that it used the model.

    Attributes:
        purpose: What for, in the caller's words; may be empty.
    """

    purpose: str = ""


class CapabilitiesDetected(Fact, frozen=True, kw_only=True):
    """Recorded when it was found out what a model can do.

    Attributes:
        digest: The digest that this is about; None where the model is not there.
        weights: Digest of its file of numbers; None where there is none here.
        family: Architecture, as the server names it.
        parameter_count: Number of parameters.
        quantization: As the server names it, such as ``Q4_K_M``.
        context_trained: Tokens that the model was trained for.
        context_source: Where that number comes from.
        context_default: ``num_ctx`` of the model's own parameters, where it has one.
        temperature: The recommended one, where one is known.
        temperature_source: Where that comes from.
        capabilities: By name, each with its source.
        ranks: By role, the place among the models known to be good at it, from 1.
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
    capabilities: dict[str, Capability]
    ranks: dict[str, Count] = {}


class ConfigurationChanged(Fact, frozen=True, kw_only=True):
    """Recorded when somebody changed what a model is to be used with.

    Attributes:
        set: Settings with their new values.
        unset: Settings that have no value of ours any more.
        was: What the changed ones were before; those without a value are not in it.
        note: Why, in the words of who changed it; may be empty.
    """

    set: dict[str, Setting] = {}
    unset: tuple[str, ...] = ()
    was: dict[str, Setting] = {}
    note: str = ""


class NodeReached(DriftFact, frozen=True, kw_only=True):
    """Recorded when a node answers for the first time, again, or as another version.

    Attributes:
        version: The server's version, as it says.
        url: Where it was reached.
    """

    version: str
    url: str


class NodeLost(Fact, frozen=True, kw_only=True):
    """Recorded when a node that did answer does so no longer.

    Attributes:
        kind: The error's stable word, such as ``node_unreachable``.
        message: What is wrong, for people.
    """

    kind: str
    message: str


class NodeMoved(Fact, frozen=True, kw_only=True):
    """Recorded when the user says that a node has another address now.

    Attributes:
        from_url: The address before.
        to_url: The address from now on.
    """

    from_url: str
    to_url: str


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
    RunnerChanged,
    ModelUnloaded,
    ModelUsed,
    CapabilitiesDetected,
    ConfigurationChanged,
    NodeReached,
    NodeLost,
    NodeMoved,
)
"""Every fact there is."""
