"""The present status of every model and node: the main view.

There is one mutable record per model, driven by the compiled lifecycle. Callers get a
copy. Objects inside a record are replaced, never changed, so a shallow copy is enough.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, ClassVar, Self, TypeVar, cast

import msgspec

from herdbook.events import facts
from herdbook.events.facts import Capability, FactSource, Runner, Setting
from herdbook.events.findings import (
    Finding,
    belongs,
    illegal_event,
    unreadable_data,
    wrong_stream,
)
from herdbook.events.lifecycle import (
    EVENTS,
    INITIAL,
    TRANSITIONS,
    Activity,
    Lifecycle,
    ModelState,
    fold,
)
from herdbook.events.recorded import Cause, RecordedEvent
from herdbook.events.streams import model_of, node_of
from herdbook.projections.roles import CAPABILITY_SETTING

T = TypeVar("T")


class Why(msgspec.Struct, frozen=True):
    """The event that caused the present state.

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


class Failure(msgspec.Struct, frozen=True):
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


class Work(msgspec.Struct, frozen=True):
    """A running activity.

    Attributes:
        activity: Pull, update or load.
        instance: Instance of Herdbook that runs it.
        since: When it started.
        actor: Who asked for it.
        completed_bytes: Last recorded progress, bytes.
        total_bytes: Total size, if known, bytes.
        insecure: Whether the registry may be used without TLS.
    """

    activity: Activity
    instance: str
    since: datetime
    actor: str
    completed_bytes: int | None = None
    total_bytes: int | None = None
    insecure: bool = False


class KeepAlive(msgspec.Struct, frozen=True):
    """How long a runner stays in memory after a request, as far as that is known.

    Attributes:
        at_least_s: Lower bound, seconds.
        at_most_s: Upper bound, seconds.
    """

    at_least_s: float
    at_most_s: float


class ModelStatus(msgspec.Struct, kw_only=True):
    """The present status of a model on a node.

    Attributes:
        node: Name of the node.
        name: Canonical name, in the spelling of the server.
        lifecycle: State, activity, presence, and whether an update is running.
        since: When the state or activity started; None if unknown.
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
        keep_alive: The keep-alive that the runner was last seen with, if known.
        last_used_at: Time of the last use; of an observed one, the latest possible.
        last_used_by: Actor of the last use; None for an observed one.
        last_used_within_s: How much earlier an observed use may have ended, seconds.
        uses: Number of uses; an observed one stands for one or more requests.
        last_failure: The last failure; None after a success.
        work: The running pull or load.
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

    @property
    def updating(self) -> bool:
        """Whether an update is running."""
        return self.lifecycle.updating

    @property
    def activity(self) -> Activity | None:
        """The running activity: a pull or a load, otherwise an update."""
        update = Activity.UPDATE if self.lifecycle.updating else None
        return self.lifecycle.activity or update

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


class NodeStatus(msgspec.Struct, kw_only=True):
    """The present status of a node.

    Attributes:
        name: Name of the node in Herdbook.
        url: Address of the node.
        server_version: Version of the server, as it reports it.
        reached: Whether the node answered the last request.
        since: Since when that is so.
        message: The problem, if the node does not answer.
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
    def managed(self) -> bool:
        """Whether a user added the node and did not remove it."""
        return self.added_at is not None and self.removed_at is None


class _Dump(msgspec.Struct):
    models: dict[str, ModelStatus]
    nodes: dict[str, NodeStatus]
    weights: dict[str, str]
    position: int
    findings: list[Finding]


_encode = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder(_Dump).decode


CONFIRMED_WITHIN_S = 1.0
"""Seconds from the end of a load at the server until Herdbook has recorded it."""

MOST_FINDINGS = 100
"""Maximum number of findings in the view; ``verify`` reports all of them."""


class StatusView:
    """State, activity, facts, configuration and memory of every model.

    Attributes:
        position: Position of the last event that was applied.
        findings: The first 100 problems of the applied events: data that cannot be
            read, illegal events, and events in the wrong stream.
    """

    name: ClassVar[str] = "status"
    form: ClassVar[int] = 5

    def __init__(self) -> None:
        self._models: dict[str, ModelStatus] = {}  # by stream
        self._nodes: dict[str, NodeStatus] = {}  # by stream
        self._weights: dict[str, str] = {}  # by digest of a model, the present and past
        self._own: set[str] | None = None  # streams of records that no copy shares
        self.position = 0
        self.findings: list[Finding] = []

    def apply(self, event: RecordedEvent) -> None:
        """Apply one event; an invalid event is a finding and never an error."""
        self.position = event.position
        if isinstance(event.data, facts.UnreadableFact):
            self._note(
                unreadable_data(
                    event.position, event.type, event.stream, event.data.reason
                )
            )
        model = self._models.get(event.stream) or self._new_model(event)
        if model is not None:
            if self._own is not None and event.stream not in self._own:
                model = self._models[event.stream] = copy.copy(model)
                self._own.add(event.stream)
            self._apply_to_model(model, event)
            return
        node = self._nodes.get(event.stream) or self._new_node(event)
        if node is not None:
            self._apply_to_node(node, event)
        else:
            self._note_wrong_stream(event)

    def _apply_to_model(self, model: ModelStatus, event: RecordedEvent) -> None:
        model.version = event.version
        if event.type not in EVENTS:
            self._note_wrong_stream(event)
            return
        before = model.lifecycle
        legal = TRANSITIONS[before].get(event.type)
        is_legal = legal is not None
        after = fold(before, event.type) if legal is None else legal
        if after is not before:
            model.lifecycle = after
            if after[0] is not before[0] or after[1] is not before[1]:
                model.since = event.occurred_at
                model.why = Why(event.type, event.cause, event.actor, event.position)
        if is_legal or after != before:
            self._apply_data(model, event)
        if not is_legal:
            self._note(
                illegal_event(event.position, event.type, event.stream, before, after)
            )
            _clear_contradictions(model)

    def _apply_data(self, model: ModelStatus, event: RecordedEvent) -> None:
        """Apply the data of an event, if they can be read."""
        effect = _EFFECTS.get(event.type)
        if effect is None or isinstance(event.data, facts.UnreadableFact):
            return
        effect(model, event)
        if event.type == facts.CapabilitiesDetected.__name__:
            self._learn_weights(model)

    def _note(self, finding: Finding) -> None:
        if len(self.findings) < MOST_FINDINGS:
            self.findings.append(finding)

    def _note_wrong_stream(self, event: RecordedEvent) -> None:
        if not belongs(event.type, event.stream):
            self._note(wrong_stream(event.position, event.type, event.stream))

    def _learn_weights(self, model: ModelStatus) -> None:
        if model.weights is not None and model.detected_digest is not None:
            self._weights[model.detected_digest] = model.weights

    def _new_model(self, event: RecordedEvent) -> ModelStatus | None:
        """Return the status of a new model; None if the stream is not a model's."""
        key = model_of(event.stream)
        if key is None:
            return None
        model = ModelStatus(node=key.node, name=key.name, since=event.occurred_at)
        self._models[event.stream] = model
        return model

    def _new_node(self, event: RecordedEvent) -> NodeStatus | None:
        """Return the status of a new node; None if the stream is not a node's."""
        name = node_of(event.stream)
        if name is None:
            return None
        node = self._nodes[event.stream] = NodeStatus(name=name)
        return node

    def _apply_to_node(self, node: NodeStatus, event: RecordedEvent) -> None:
        node.version, at = event.version, event.occurred_at
        match event.data:
            case facts.NodeReached(version=version, url=url):
                if not node.reached:
                    node.since = at
                node.url, node.server_version = url, version
                node.reached, node.message = True, ""
            case facts.NodeMoved(to_url=url):
                # Unreached until a refresh gets an answer from the new address.
                node.url, node.reached, node.since = url, False, at
            case facts.NodeLost(message=message):
                node.reached, node.since, node.message = False, at, message
            case facts.NodeAdded(url=url):
                if node.url != url:
                    node.url, node.reached, node.since = url, False, at
                node.added_at, node.removed_at = at, None
            case facts.NodeConfigured(settings=settings):
                node.settings = settings
            case facts.NodeRemoved():
                node.removed_at = at
            case facts.UsesNotRecorded() | facts.AnchorReceived():
                pass
            case _:
                self._note_wrong_stream(event)

    def find(self, stream: str) -> ModelStatus | None:
        """Return the record of a model's stream without a copy; do not change it."""
        return self._models.get(stream)

    def get(self, stream: str) -> ModelStatus | None:
        """Return the present status of a model's stream."""
        model = self._models.get(stream)
        return None if model is None else self._copy_with_node(model)

    def all(self, node: str | None = None) -> list[ModelStatus]:
        """Return the status of every model, on one node or all, by name."""
        return [self._copy_with_node(model) for model in self.records(node)]

    def records(self, node: str | None = None) -> list[ModelStatus]:
        """Return the records of the models as ``all`` does, without copies.

        They do not show whether their node answers; do not change them. A record that
        a copy of the view shares is never changed: its view replaces it.
        """
        models = self._models.values()
        chosen = (m for m in models if node is None or m.node == node)
        return sorted(chosen, key=lambda m: (m.node, m.name))

    def weights_of(self, digest: str) -> str | None:
        """Return the weights of a digest, including digests of deleted models."""
        return self._weights.get(digest)

    def node(self, stream: str) -> NodeStatus | None:
        """Return the status of a node's stream."""
        node = self._nodes.get(stream)
        return None if node is None else copy.copy(node)

    def nodes(self) -> list[NodeStatus]:
        """Return the status of every node, by name."""
        return [copy.copy(self._nodes[stream]) for stream in sorted(self._nodes)]

    def _copy_with_node(self, model: ModelStatus) -> ModelStatus:
        status = copy.copy(model)
        node = self._nodes.get(f"node/{model.node}")
        if node is not None and not node.reached:
            status.stale_since = node.since
        return status

    def dump(self) -> bytes:
        """Serialize the view; equal views have equal bytes."""
        return _encode(
            _Dump(
                self._models,
                self._nodes,
                self._weights,
                self.position,
                self.findings,
            )
        )

    @classmethod
    def copy_of(cls, other: Self) -> Self:
        """Copy a view, so that later events do not change the copy.

        The records of models are shared until an event changes one: then its view
        replaces it by a copy. So a record that a copy has seen is never changed.
        """
        view = cls()
        view._models, view._nodes = dict(other._models), _copies(other._nodes)
        view._own, other._own = set(), set()
        view._weights, view.position = dict(other._weights), other.position
        view.findings = [*other.findings]
        return view

    @classmethod
    def load(cls, data: bytes) -> Self:
        """Load a view from a dump."""
        dump = _decode(data)
        view = cls()
        view._models, view._nodes = dump.models, dump.nodes
        view._weights, view.position = dump.weights, dump.position
        view.findings = dump.findings
        return view


def _clear_contradictions(model: ModelStatus) -> None:
    """Clear fields that contradict the lifecycle, after an illegal event."""
    if not model.present:
        model.digest = model.size_bytes = model.remote_host = None
        model.weights = model.detected_digest = None
    if model.state is not ModelState.LOADED:
        model.runner = model.keep_alive = None
    if model.lifecycle.activity is None:
        model.work = None
    if not model.updating:
        model.update = None


def _copies(records: Mapping[str, T]) -> dict[str, T]:
    return {stream: copy.copy(record) for stream, record in records.items()}


def _arrived(model: ModelStatus, event: RecordedEvent) -> None:
    fact = cast("facts.ModelDiscovered | facts.ModelUpdated", event.data)
    model.digest, model.size_bytes = fact.digest, fact.size_bytes
    model.remote_host, model.last_failure = fact.remote_host, None
    if fact.digest != model.detected_digest:
        model.weights = None
    if model.lifecycle.activity is None:
        model.work = None
    if not model.lifecycle.updating:
        model.update = None


def _removed(model: ModelStatus, _: RecordedEvent) -> None:
    model.digest = model.size_bytes = model.remote_host = None
    model.weights = model.detected_digest = None  # detect again if it returns
    model.runner = model.keep_alive = None
    model.work = model.update = model.last_failure = None


def _work_started(model: ModelStatus, event: RecordedEvent) -> None:
    fact = cast("facts.PullStarted | facts.LoadStarted", event.data)
    pulls = isinstance(fact, facts.PullStarted)
    model.work = Work(
        Activity.PULL if pulls else Activity.LOAD,
        fact.instance,
        event.occurred_at,
        event.actor,
        insecure=isinstance(fact, facts.PullStarted) and fact.insecure,
    )


def _update_started(model: ModelStatus, event: RecordedEvent) -> None:
    fact = cast("facts.UpdateStarted", event.data)
    model.update = Work(
        Activity.UPDATE,
        fact.instance,
        event.occurred_at,
        event.actor,
        insecure=fact.insecure,
    )


def _progressed(model: ModelStatus, event: RecordedEvent) -> None:
    fact = cast("facts.PullProgressed | facts.UpdateProgressed", event.data)
    progress = {
        "completed_bytes": fact.completed_bytes,
        "total_bytes": fact.total_bytes,
    }
    if model.update is not None:
        model.update = msgspec.structs.replace(model.update, **progress)
    elif model.work is not None:
        model.work = msgspec.structs.replace(model.work, **progress)


def _work_ended(model: ModelStatus, _: RecordedEvent) -> None:
    model.work = None


def _update_ended(model: ModelStatus, _: RecordedEvent) -> None:
    model.update = None


def _failed(model: ModelStatus, event: RecordedEvent) -> None:
    fact = cast("facts.PullFailed | facts.UpdateFailed | facts.LoadFailed", event.data)
    if isinstance(fact, facts.UpdateFailed):
        model.update = None
    else:
        model.work = None
    model.last_failure = Failure(event.type, fact.kind, fact.message, event.occurred_at)


def _loaded(model: ModelStatus, event: RecordedEvent) -> None:
    fact = cast("facts.ModelLoaded | facts.RunnerChanged", event.data)
    model.runner = fact.runner
    model.keep_alive = None
    if isinstance(fact, facts.ModelLoaded):
        model.work = model.last_failure = None
        if fact.duration_s is not None:
            _learn_keep_alive(model, event.occurred_at, CONFIRMED_WITHIN_S)


def _renewed(model: ModelStatus, event: RecordedEvent) -> None:
    fact = cast("facts.KeepAliveRenewed", event.data)
    if model.runner is not None:
        model.runner = msgspec.structs.replace(model.runner, expires_at=fact.expires_at)
        _learn_keep_alive(model, event.occurred_at, CONFIRMED_WITHIN_S)


def _learn_keep_alive(model: ModelStatus, at: datetime, within_s: float) -> None:
    """Derive the keep-alive of a runner from the end of its last request.

    Args:
        model: The model; its runner has the expiry that the request led to.
        at: The latest time at which the request may have ended.
        within_s: How much earlier it may have ended, seconds.
    """
    expires_at = model.runner.expires_at if model.runner else None
    if expires_at is not None:
        seconds = (expires_at - at).total_seconds()
        model.keep_alive = KeepAlive(seconds, seconds + within_s)


def _unloaded(model: ModelStatus, event: RecordedEvent) -> None:
    fact = cast("facts.ModelUnloaded", event.data)
    model.runner = model.keep_alive = None
    if model.why is not None:
        model.why = msgspec.structs.replace(
            model.why, detail=fact.reason.value, evicted_by=fact.evicted_by
        )


def _used(model: ModelStatus, event: RecordedEvent) -> None:
    fact = cast("facts.ModelUsed", event.data)
    model.uses += facts.uses_of(fact)
    model.last_used_at, model.last_used_by = event.occurred_at, event.actor
    model.last_used_within_s = 0.0
    if fact.uncertainty_s is msgspec.UNSET:
        return
    model.last_used_by, model.last_used_within_s = None, fact.uncertainty_s
    if fact.expires_at is not msgspec.UNSET and model.runner is not None:
        model.runner = msgspec.structs.replace(model.runner, expires_at=fact.expires_at)
        _learn_keep_alive(model, event.occurred_at, fact.uncertainty_s)


def _detected(model: ModelStatus, event: RecordedEvent) -> None:
    fact = cast("facts.CapabilitiesDetected", event.data)
    model.detected, model.detected_digest = fact.capabilities, fact.digest
    model.weights, model.family = fact.weights, fact.family
    model.parameter_count = fact.parameter_count
    model.quantization = fact.quantization
    model.context_trained = fact.context_trained
    model.context_source = fact.context_source
    model.context_default = fact.context_default
    model.temperature = fact.temperature
    model.temperature_source = fact.temperature_source
    model.parameters, model.detected_schema = fact.parameters, event.schema


def _configured(model: ModelStatus, event: RecordedEvent) -> None:
    fact = cast("facts.ConfigurationChanged", event.data)
    kept = {k: v for k, v in model.settings.items() if k not in fact.unset}
    model.settings = {**kept, **fact.set}


_EFFECTS: dict[str, Callable[[ModelStatus, RecordedEvent], None]] = {
    fact.__name__: effect
    for effect, kinds in (
        (_arrived, (facts.ModelDiscovered, facts.PullCompleted, facts.ModelUpdated)),
        (_removed, (facts.ModelVanished, facts.ModelDeleted)),
        (_work_started, (facts.PullStarted, facts.LoadStarted)),
        (_update_started, (facts.UpdateStarted,)),
        (_progressed, (facts.PullProgressed, facts.UpdateProgressed)),
        (
            _work_ended,
            (
                facts.PullCancelled,
                facts.PullInterrupted,
                facts.LoadCancelled,
                facts.LoadInterrupted,
            ),
        ),
        (
            _update_ended,
            (
                facts.UpdateCancelled,
                facts.UpdateInterrupted,
                facts.UpdateUnchanged,
            ),
        ),
        (_failed, (facts.PullFailed, facts.UpdateFailed, facts.LoadFailed)),
        (_loaded, (facts.ModelLoaded, facts.RunnerChanged)),
        (_renewed, (facts.KeepAliveRenewed,)),
        (_unloaded, (facts.ModelUnloaded,)),
        (_used, (facts.ModelUsed,)),
        (_detected, (facts.CapabilitiesDetected,)),
        (_configured, (facts.ConfigurationChanged,)),
    )
    for fact in kinds
}
