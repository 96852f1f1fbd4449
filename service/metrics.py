"""Prometheus metrics of the service."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from herdbook.core import InvalidNameError, ModelState, ReadModel
from herdbook.core.concurrency.supervisor import TaskStatus
from herdbook.core.log.location import LogLocation
from herdbook.core.models.names import canonical_name
from herdbook.core.upkeep.recurring import UpkeepStatus
from herdbook.events.facts import UseOutcome
from herdbook.service.operations.operation import Kind, Operation, OperationState

MEDIA_TYPE: Final = CONTENT_TYPE_LATEST.removesuffix("; charset=utf-8")
"""The content type of the metrics; Litestar adds the charset."""

_APPEND_S: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 1.0)
_ASKED_S: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 300.0)
_USED_S: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
MOST_MODELS: Final = 200
"""Names of models that are labels of the gateway's metrics."""

_KNOWN_PATHS: Final = frozenset(
    f"/api/{name}"
    for name in (
        *("version", "tags", "ps", "show", "pull"),
        *("generate", "embed", "delete", "copy", "create"),
    )
)


class Readings(NamedTuple):
    """The values of the gauges, read at one time.

    Attributes:
        read_models: The models of each node.
        refreshes: Names of the nodes that this instance refreshes periodically.
        lag: Number of events that the views have not applied.
        readers: Number of event stream readers.
        tasks: The background tasks.
        operations: The operations in memory.
        upkeep: The backups and anchors at intervals.
    """

    read_models: Sequence[ReadModel]
    lag: int
    readers: int
    tasks: Iterable[TaskStatus]
    operations: Iterable[Operation]
    refreshes: Collection[str] = ()
    upkeep: Iterable[UpkeepStatus] = ()


class Metrics:
    """The metrics of one service; the observer of its manager.

    Args:
        log: The log; a file has a write-ahead log, whose size is measured.
    """

    def __init__(self, log: str | LogLocation) -> None:
        self._wal = Path(f"{log}-wal")
        self.registry = CollectorRegistry()
        self._append_s = Histogram(
            "herdbook_append_seconds",
            "Seconds from calling append until the events are durable.",
            buckets=_APPEND_S,
            registry=self.registry,
        )
        self._appended = Counter(
            "herdbook_events_appended", "Events appended.", registry=self.registry
        )
        self._asked_s = Histogram(
            "herdbook_ollama_request_seconds",
            "Duration of requests to Ollama in seconds.",
            ["method", "path"],
            buckets=_ASKED_S,
            registry=self.registry,
        )
        self._failures = Counter(
            "herdbook_ollama_failures",
            "Requests to Ollama that failed.",
            ["path", "kind"],
            registry=self.registry,
        )
        self._pulled = Counter(
            "herdbook_pulled_bytes",
            "Bytes downloaded by pulls.",
            registry=self.registry,
        )
        self._gauges = _Gauges(self.registry)
        self.gateway = GatewayMetrics(self.registry)

    def appended(self, *, events: int, seconds: float) -> None:
        """Count a successful append."""
        self._append_s.observe(seconds)
        self._appended.inc(events)

    def asked(
        self, *, method: str, path: str, seconds: float, failure: str | None
    ) -> None:
        """Count a finished request to Ollama."""
        known = path if path in _KNOWN_PATHS else "other"
        self._asked_s.labels(method, known).observe(seconds)
        if failure is not None:
            self._failures.labels(known, failure).inc()

    def text(self, readings: Readings) -> bytes:
        """Return all metrics as text, after setting the gauges."""
        self._gauges.set(readings, self._wal)
        return generate_latest(self.registry)

    def fetched(self, more_bytes: int) -> None:
        """Count bytes that a pull has downloaded."""
        self._pulled.inc(more_bytes)


class GatewayUse(Protocol):
    """A request of the gateway that ended, as far as metrics need it."""

    @property
    def model(self) -> str:
        """Name of the model, as requested; not every request names a known one."""
        ...

    @property
    def duration_s(self) -> float:
        """Time until the exchange ended, seconds."""
        ...

    @property
    def first_token_s(self) -> float | None:
        """Time until the first byte of a successful answer, seconds."""
        ...

    @property
    def outcome(self) -> UseOutcome:
        """How it ended."""
        ...

    @property
    def tokens(self) -> tuple[int, int]:
        """Tokens of the prompt and of the answer."""
        ...


class _ModelMetrics(NamedTuple):
    """The metrics of a model and an outcome, with their labels, which take long."""

    requests: Counter
    duration_s: Histogram
    prompt: Counter
    output: Counter


class GatewayMetrics:
    """The metrics of the gateway next to the service.

    Models are a label. Clients choose the names, so that only the first
    ``MOST_MODELS`` models that answered are labels; all other names share the label
    ``other``, and so do failures of a model that has not answered yet.

    Args:
        registry: The registry of all metrics.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._names: set[str] = set()
        self._of: dict[tuple[str, UseOutcome], _ModelMetrics] = {}
        self._requests = Counter(
            "herdbook_gateway_requests",
            "Finished requests to models.",
            ["model", "outcome"],
            registry=registry,
        )
        self._tokens = Counter(
            "herdbook_gateway_tokens",
            "Prompt and output tokens.",
            ["model", "kind"],
            registry=registry,
        )
        self._duration_s = Histogram(
            "herdbook_gateway_request_seconds",
            "Seconds from a request to the end of its answer.",
            ["model", "outcome"],
            buckets=_USED_S,
            registry=registry,
        )
        self._first_token_s = Histogram(
            "herdbook_gateway_first_token_seconds",
            "Seconds from a request to the first byte of a successful answer.",
            ["model"],
            buckets=_USED_S,
            registry=registry,
        )
        self._in_flight = Gauge(
            "herdbook_gateway_in_flight", "Requests in progress.", registry=registry
        )

    def follow(self, in_flight: Callable[[], int]) -> None:
        """Report the number of running requests, as a function returns it."""
        self._in_flight.set_function(in_flight)

    def used(self, use: GatewayUse) -> None:
        """Count a request to a model that ended."""
        if not use.model:
            return
        model, outcome = self._label(use), use.outcome
        of = self._of.get((model, outcome))
        if of is None:
            of = self._of[model, outcome] = self._labelled(model, outcome.value)
        prompt, output = use.tokens
        of.requests.inc()
        of.duration_s.observe(use.duration_s)
        of.prompt.inc(prompt)
        of.output.inc(output)
        if use.first_token_s is not None:
            self._first_token_s.labels(model).observe(use.first_token_s)

    def _labelled(self, model: str, outcome: str) -> _ModelMetrics:
        return _ModelMetrics(
            self._requests.labels(model, outcome),
            self._duration_s.labels(model, outcome),
            self._tokens.labels(model, "prompt"),
            self._tokens.labels(model, "output"),
        )

    def _label(self, use: GatewayUse) -> str:
        try:
            name = canonical_name(use.model).lower()
        except InvalidNameError:
            return "other"
        if name not in self._names:
            if use.first_token_s is None or len(self._names) >= MOST_MODELS:
                return "other"
            self._names.add(name)
        return name


class _Gauges:
    """The gauges, which are set when the metrics are requested."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"herdbook_{name}", text, labels, registry=registry)

        self._head = gauge("log_head_position", "Position of the newest event.")
        self._lag = gauge("projection_lag_events", "Events not applied to views yet.")
        self._readers = gauge("stream_readers", "Clients that read the event stream.")
        self._wal = gauge("log_wal_bytes", "Bytes of the write-ahead log.")
        self._node = gauge("node_up", "Whether the Ollama server answers.", "node")
        self._drained = gauge("node_drained", "Whether a node is drained.", "node")
        self._refreshed = gauge(
            "node_refreshed_here",
            "Whether this process refreshes the node periodically.",
            "node",
        )
        self._node_models = gauge(
            "node_models", "Models of a node by state.", "node", "state"
        )
        self._memory = gauge(
            "node_memory_bytes", "Memory of the loaded models of a node.", "node"
        )
        self._of_nodes = (
            self._node,
            self._drained,
            self._refreshed,
            self._node_models,
            self._memory,
        )
        self._models = gauge("models", "Models of all nodes by state.", "state")
        self._operations = gauge(
            "operations", "Operations the service remembers.", "kind", "state"
        )
        self._task_up = gauge(
            "task_up", "Whether a background task is healthy.", "task"
        )
        self._task_restarts = Counter(
            "herdbook_task_restarts",
            "Restarts of a background task after a failure.",
            ["task"],
            registry=registry,
        )
        self._counted_restarts: dict[str, int] = {}
        self._upkeep_at = gauge(
            "upkeep_last_timestamp_seconds",
            "Time of the last backup or anchor, Unix time.",
            "task",
        )
        self._upkeep_position = gauge(
            "upkeep_last_position",
            "Position of the log in the last backup or anchor.",
            "task",
        )

    def _read_tasks(self, tasks: Iterable[TaskStatus]) -> None:
        """Set the gauges of the background tasks; those of removed nodes go."""
        self._task_up.clear()
        for task in tasks:
            self._task_up.labels(task.name).set(task.up)
            counted = self._counted_restarts.get(task.name, 0)
            # A node that was moved, or added again, has new tasks that count from 0.
            more = task.restarts - (counted if task.restarts >= counted else 0)
            self._task_restarts.labels(task.name).inc(more)
            self._counted_restarts[task.name] = task.restarts

    def _read_upkeep(self, upkeep: Iterable[UpkeepStatus]) -> None:
        for work in upkeep:
            if work.last_at is not None:
                self._upkeep_at.labels(work.task).set(work.last_at.timestamp())
            if work.last_position is not None:
                self._upkeep_position.labels(work.task).set(work.last_position)

    def _read_nodes(
        self, read_models: Sequence[ReadModel], refreshes: Collection[str]
    ) -> None:
        """Set the gauges of nodes and models; those of removed nodes go."""
        for gauge in self._of_nodes:
            gauge.clear()
        totals: Counts[ModelState] = Counts()
        for read_model in read_models:
            node = read_model.node_status()
            is_up = node.reached and read_model.overdue_since is None
            self._node.labels(node.name).set(is_up)
            self._drained.labels(node.name).set(node.settings.drained)
            self._refreshed.labels(node.name).set(node.name in refreshes)
            records = read_model.records()
            states = Counts(record.state for record in records)
            for state in ModelState:
                self._node_models.labels(node.name, state.value).set(states[state])
            runners = {
                record.runner.digest: record.runner.size_bytes
                for record in records
                if record.runner is not None
            }
            self._memory.labels(node.name).set(sum(runners.values()))
            totals += states
        for state in ModelState:
            self._models.labels(state.value).set(totals[state])

    def set(self, readings: Readings, wal: Path) -> None:
        """Set all gauges."""
        self._read_nodes(readings.read_models, readings.refreshes)
        self._read_tasks(readings.tasks)
        self._read_upkeep(readings.upkeep)
        self._head.set(readings.read_models[0].position)
        self._lag.set(readings.lag)
        self._readers.set(readings.readers)
        self._wal.set(_size(wal))
        known = [(one.kind, one.state) for one in readings.operations]
        for kind in Kind:
            for ending in OperationState:
                count = known.count((kind, ending))
                self._operations.labels(kind.value, ending.value).set(count)


def _size(path: Path) -> int:
    """Return the size of a file; 0 if it does not exist, as after a checkpoint."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
