"""The current status of a model, and of a node.

Objects inside a status are replaced, never changed, so a shallow copy is enough.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec

from herdbook.events import facts
from herdbook.events.facts import Capability, FactSource, Runner, Setting
from herdbook.events.lifecycle import INITIAL, Activity, Lifecycle, ModelState
from herdbook.events.recorded import Cause
from herdbook.projections.roles import CAPABILITY_SETTING
from herdbook.projections.serializable import Serializable

FAILURE_LISTED = timedelta(days=1)
"""How long lists show a model that is not on the server because its pull failed."""


class Why(msgspec.Struct, frozen=True, gc=False):
    """The event that caused the current state.

    Attributes:
        event: Event type.
        cause: Why it was recorded.
        actor: Who asked for it.
        position: Position in the log.
        detail: Reason in the data of the event, if there is one.
        evicted_by: Model that was loaded in its place, for an eviction.
    """

    event: str
    cause: Cause
    actor: str
    position: int
    detail: str = ""
    evicted_by: str | None = None


class Load(msgspec.Struct, frozen=True, gc=False):
    """An event that loaded a model, or replaced its runner.

    Attributes:
        at: When it happened.
        cause: Why it was recorded.
        actor: Who asked for it.
        position: Position in the log.
    """

    at: datetime
    cause: Cause
    actor: str
    position: int


class Failure(msgspec.Struct, frozen=True, gc=False):
    """The last failure of a model.

    Attributes:
        event: Event type.
        kind: Stable code of the error.
        message: Error message of the server.
        at: Time of the failure.
    """

    event: str
    kind: str
    message: str
    at: datetime


class Work(msgspec.Struct, frozen=True, gc=False):
    """A running activity.

    Attributes:
        activity: Pull, update, load or reload.
        instance: Instance of Herdbook that runs it.
        since: When it started.
        actor: Who asked for it.
        completed_bytes: Last recorded progress, bytes.
        total_bytes: Total size, if known, bytes.
        insecure: Whether the registry may be used without TLS.
        operation: Correlation id of its events, if they have one.
        cancelled_by: Who requested its cancellation from another instance; None if
            nobody did.
    """

    activity: Activity
    instance: str
    since: datetime
    actor: str
    completed_bytes: int | None = None
    total_bytes: int | None = None
    insecure: bool = False
    operation: str | None = None
    cancelled_by: str | None = None


class KeepAlive(msgspec.Struct, frozen=True, gc=False):
    """How long a runner stays in memory after a request, as far as that is known.

    Attributes:
        at_least_s: Lower bound, seconds.
        at_most_s: Upper bound, seconds.
    """

    at_least_s: float
    at_most_s: float


class ModelStatus(Serializable, msgspec.Struct, kw_only=True, gc=False):
    """The current status of a model on a node.

    Attributes:
        node: Name of the node.
        name: Canonical name, in the spelling of the server.
        lifecycle: State, activity, presence, and whether an update is running.
        since: When the state started, or the pull or load of a model that is
            ``loading``; None if unknown.
        why: The event that caused the state.
        version: Version of the stream.
        digest: Digest of the manifest; None if the model is not present.
        size_bytes: Sum of the layers, bytes.
        remote_host: Host that runs a cloud model.
        weights: Digest of the weights file.
        family: Architecture, as reported by the server.
        parameter_count: Number of parameters.
        quantization: As reported by the server.
        context_trained: Trained context, tokens; None if unknown.
        context_source: Source of ``context_trained``.
        context_default: ``num_ctx`` of the model's own parameters.
        temperature: Recommended temperature.
        temperature_source: Source of ``temperature``.
        parameters: The model's own parameters, by name.
        detected: Detected capabilities, by name.
        detected_digest: Digest for which the capabilities were detected.
        detected_schema: Schema of the event that recorded them; 0 if there is none.
        settings: Configured settings, by name.
        runner: The runner of the weights, while the model is loaded.
        reloaded: The last event that replaced the runner; None since it was loaded.
        keep_alive: The keep-alive that the runner was last seen with, if known.
        last_used_at: Time of the last use; of an observed one, the latest possible.
        last_used_by: Actor of the last use; None for an observed one.
        last_used_within_s: How much earlier an observed use may have ended, seconds.
        uses: Number of uses; an observed one stands for one or more requests.
        last_failure: The last failure; None after a success.
        work: The running pull, load or reload.
        update: The running update.
        stale_since: Since when the node does not answer; None while it does.
    """

    node: str
    name: str
    lifecycle: Lifecycle = INITIAL
    since: datetime | None = None
    why: Why | None = None
    version: int = 0
    digest: str | None = None
    size_bytes: int | None = None
    remote_host: str | None = None
    weights: str | None = None
    family: str | None = None
    parameter_count: int | None = None
    quantization: str | None = None
    context_trained: int | None = None
    context_source: FactSource | None = None
    context_default: int | None = None
    temperature: float | None = None
    temperature_source: FactSource | None = None
    detected: dict[str, Capability] = {}
    detected_digest: str | None = None
    detected_schema: int = 0
    parameters: dict[str, facts.Setting] = {}
    settings: dict[str, Setting] = {}
    runner: Runner | None = None
    reloaded: Load | None = None
    keep_alive: KeepAlive | None = None
    last_used_at: datetime | None = None
    last_used_by: str | None = None
    last_used_within_s: float = 0.0
    uses: int = 0
    last_failure: Failure | None = None
    work: Work | None = None
    update: Work | None = None
    stale_since: datetime | None = None

    @property
    def state(self) -> ModelState:
        """Whether the model can be used now."""
        return self.lifecycle.state

    @property
    def present(self) -> bool:
        """Whether the server has the model."""
        return self.lifecycle.present

    def is_old_failure(self, now: datetime) -> bool:
        """Return whether a pull failed a day ago, and the model never was there.

        Lists omit it; the history has it.
        """
        return (
            self.state is ModelState.ERROR
            and not self.present
            and self.last_failure is not None
            and now - self.last_failure.at >= FAILURE_LISTED
        )

    @property
    def updating(self) -> bool:
        """Whether an update is running."""
        return self.lifecycle.updating

    @property
    def activity(self) -> Activity | None:
        """The running activity: a pull, load or reload, otherwise an update."""
        update = Activity.UPDATE if self.lifecycle.updating else None
        return self.lifecycle.activity or update

    @property
    def last_load(self) -> Load | None:
        """The event that loaded the model, or replaced its runner; None if unknown."""
        if self.state is not ModelState.LOADED:
            return None
        if self.reloaded is not None or self.why is None or self.since is None:
            return self.reloaded
        return Load(self.since, self.why.cause, self.why.actor, self.why.position)

    @property
    def context_configured(self) -> int | None:
        """The configured context, tokens."""
        tokens = self.settings.get("num_ctx")
        return tokens if isinstance(tokens, int) else None

    @property
    def context_in_effect(self) -> int | None:
        """The context of the runner, tokens, if known."""
        return self.runner.context_length if self.runner else None

    @property
    def capabilities(self) -> dict[str, Capability]:
        """The detected capabilities by name, overridden by the configuration."""
        overrides = {
            name.removeprefix(CAPABILITY_SETTING): Capability(
                value=bool(value), source=FactSource.CONFIGURATION
            )
            for name, value in self.settings.items()
            if name.startswith(CAPABILITY_SETTING)
        }
        return {**self.detected, **overrides}

    def shares_weights_with(self, other: ModelStatus) -> bool:
        """Return whether another model, by its name, has the same weights."""
        return (
            self.weights is not None
            and self.weights == other.weights
            and self.name != other.name
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the status as a dictionary that ``json.dumps`` accepts.

        It has the attributes, with times as ISO 8601 text, and the properties
        ``state``, ``present``, ``updating``, ``activity`` and ``capabilities``.
        """
        properties = {
            "state": self.state,
            "present": self.present,
            "updating": self.updating,
            "activity": self.activity,
            "capabilities": self.capabilities,
        }
        fields = msgspec.structs.asdict(self)
        for name in ("lifecycle", "detected", "detected_digest", "detected_schema"):
            del fields[name]
        result: dict[str, Any] = msgspec.to_builtins(fields | properties, str_keys=True)
        return result

    def can(self, capability: str) -> bool:
        """Return whether the model has a capability; False if unknown."""
        known = self.capabilities.get(capability)
        return known is not None and known.value


class NodeStatus(Serializable, msgspec.Struct, kw_only=True, gc=False):
    """The current status of a node.

    Attributes:
        name: Name of the node in Herdbook.
        url: Address of the node.
        server_version: Version of the server, as it reports it.
        reached: Whether the node answered the last request.
        since: When it started or stopped answering.
        message: The problem, if the node does not answer; empty at an address that has
            not answered yet.
        version: Version of the stream.
        added_at: When a user added it; None if it was never added.
        removed_at: When a user removed it; None if it was not, or was added again.
        settings: How Herdbook uses it.
    """

    name: str
    url: str = ""
    server_version: str = ""
    reached: bool = False
    since: datetime | None = None
    message: str = ""
    version: int = 0
    added_at: datetime | None = None
    removed_at: datetime | None = None
    settings: facts.NodeSettings = msgspec.field(default_factory=facts.NodeSettings)

    @property
    def is_at_new_address(self) -> bool:
        """Whether it has an address that has not answered yet."""
        return bool(self.url) and not self.reached and not self.message

    @property
    def managed(self) -> bool:
        """Whether a user added the node and did not remove it."""
        return self.added_at is not None and self.removed_at is None
