"""The status of every model and node, folded from the log: the main view.

There is one mutable record per model, driven by the compiled lifecycle. Callers get a
copy.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from datetime import datetime
from typing import ClassVar, Final, Self, TypeVar

import msgspec

from herdbook.events import facts
from herdbook.events.findings import (
    Finding,
    belongs,
    illegal_event,
    unreadable_data,
    wrong_stream,
)
from herdbook.events.lifecycle import (
    EVENTS,
    TRANSITIONS,
    ModelState,
    changes_state,
    fold,
)
from herdbook.events.recorded import RecordedEvent
from herdbook.events.streams import model_of, node_of
from herdbook.projections.by_node import StreamsByNode
from herdbook.projections.memory import MemoryByNode
from herdbook.projections.status import ModelStatus, NodeStatus, Why
from herdbook.projections.status_effects import EFFECTS, clear_contradictions

T = TypeVar("T")

MOST_FINDINGS = 100
"""Maximum number of findings in the view; ``verify`` reports all of them."""

_DETECTED: Final = facts.CapabilitiesDetected.__name__
_LOADING: Final = ModelState.LOADING


class _Dump(msgspec.Struct):
    models: dict[str, ModelStatus]
    nodes: dict[str, NodeStatus]
    weights: dict[str, str]
    position: int
    findings: list[Finding]
    most_memory: dict[str, int]


_encode = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder(_Dump).decode


class StatusView:
    """State, activity, facts, configuration and memory of every model.

    Attributes:
        memory: Memory of the runners of each node.
        position: Position of the last event that was applied.
        findings: The first 100 problems of the applied events: data that cannot be
            read, illegal events, and events in the wrong stream.
    """

    name: ClassVar[str] = "status"
    form: ClassVar[int] = 8
    older_forms: ClassVar[frozenset[int]] = frozenset({7})
    """7 has no reloads, and the problem of the former address of a node."""

    def __init__(self) -> None:
        self._models: dict[str, ModelStatus] = {}  # by stream
        self._by_node = StreamsByNode()
        self._nodes: dict[str, NodeStatus] = {}  # by stream
        self._weights: dict[str, str] = {}  # by digest of a model, the present and past
        self._own: set[str] | None = None  # streams of records that no copy shares
        self.memory = MemoryByNode()
        self.position = 0
        self.findings: list[Finding] = []

    def apply(self, event: RecordedEvent) -> None:
        """Apply one event; an invalid event is a finding and never an error."""
        if not self._apply_legal(event):
            self._apply_any(event)

    def _apply_legal(self, event: RecordedEvent) -> bool:
        """Apply a legal event of a known model, at half of the cost.

        Returns:
            Whether it is one; if not, nothing is changed.
        """
        stream, type_, fact = event.stream, event.type, event.data
        model = self._models.get(stream)
        if model is None or type(fact) is facts.UnreadableFact:
            return False
        before = model.lifecycle
        after = TRANSITIONS[before].get(type_)
        if after is None:
            return False
        if self._own is not None and stream not in self._own:
            model = self._models[stream] = copy.copy(model)
            self._own.add(stream)
        self.position = position = event.position
        model.version = event.version
        if after is not before:
            model.lifecycle = after
            # As ``changes_state``, without a call.
            if after[0] is not before[0] or (
                after[1] is not before[1] and after[0] is _LOADING
            ):
                model.since = event.occurred_at
                model.why = Why(type_, event.cause, event.actor, position)
        effect = EFFECTS.get(type_)
        if effect is not None:
            runner = model.runner
            effect(model, event, fact)
            if model.runner is not runner:
                self.memory.change(model.node, model.name, model.runner)
            if type_ == _DETECTED:
                self._learn_weights(model)
        return True

    def _apply_any(self, event: RecordedEvent) -> None:
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
            runner = model.runner
            self._apply_to_model(model, event)
            if model.runner is not runner:
                self.memory.change(model.node, model.name, model.runner)
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
            if changes_state(before, after):
                model.since = event.occurred_at
                model.why = Why(event.type, event.cause, event.actor, event.position)
        if is_legal or after != before:
            self._apply_data(model, event)
        if not is_legal:
            self._note(
                illegal_event(event.position, event.type, event.stream, before, after)
            )
            clear_contradictions(model)

    def _apply_data(self, model: ModelStatus, event: RecordedEvent) -> None:
        """Apply the data of an event, if they can be read."""
        effect = EFFECTS.get(event.type)
        if effect is None or isinstance(event.data, facts.UnreadableFact):
            return
        effect(model, event, event.data)
        if event.type == _DETECTED:
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
        self._by_node.add(key.node, event.stream)
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
                self._at_new_address(node, url, at)
            case facts.NodeLost(message=message):
                node.reached, node.since, node.message = False, at, message
            case facts.NodeAdded(url=url):
                if node.url != url:
                    self._at_new_address(node, url, at)
                node.added_at, node.removed_at = at, None
            case facts.NodeConfigured(settings=settings):
                node.settings = settings
            case facts.NodeRemoved():
                node.removed_at = at
            case facts.UsesNotRecorded() | facts.AnchorReceived() | facts.LogArchived():
                pass
            case _:
                self._note_wrong_stream(event)

    @staticmethod
    def _at_new_address(node: NodeStatus, url: str, at: datetime) -> None:
        """Note an address that has not answered yet, so that no problem is known."""
        node.url, node.reached, node.since, node.message = url, False, at, ""

    def find(self, stream: str) -> ModelStatus | None:
        """Return the record of a model's stream without a copy; do not change it."""
        return self._models.get(stream)

    def get(self, stream: str) -> ModelStatus | None:
        """Return the current status of a model's stream."""
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
        if node is not None:
            own = [self._models[stream] for stream in self._by_node.of(node)]
            return sorted(own, key=lambda m: m.name)
        return sorted(self._models.values(), key=lambda m: (m.node, m.name))

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
                self.memory.most,
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
        view._by_node = StreamsByNode.copy_of(other._by_node)
        view._own, other._own = set(), set()
        view._weights, view.position = dict(other._weights), other.position
        view.findings = [*other.findings]
        view.memory = MemoryByNode.copy_of(other.memory)
        return view

    @classmethod
    def load(cls, data: bytes | memoryview) -> Self:
        """Load a view from a dump."""
        dump = _decode(data)
        view = cls()
        view._models, view._nodes = dump.models, dump.nodes
        view._by_node = StreamsByNode(dump.models)
        view._weights, view.position = dump.weights, dump.position
        view.findings = dump.findings
        view.memory = MemoryByNode(dump.models.values(), dump.most_memory)
        return view


def _copies(records: Mapping[str, T]) -> dict[str, T]:
    return {stream: copy.copy(record) for stream, record in records.items()}
