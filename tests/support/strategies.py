"""Random histories that the lifecycle allows, for tests of folds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Protocol

import msgspec
from hypothesis import strategies as st

from herdbook.events import facts
from herdbook.events.codec import SCHEMAS
from herdbook.events.facts import (
    AnyFact,
    Capability,
    FactSource,
    Runner,
    UnloadReason,
    UseOutcome,
)
from herdbook.events.lifecycle import INITIAL, TRANSITIONS, Lifecycle
from herdbook.events.recorded import Cause, Position, RecordedEvent
from herdbook.events.streams import model_stream, node_stream

START = datetime(2026, 1, 1, tzinfo=UTC)

names = st.sampled_from(["llama3.1:8b", "qwen2.5-coder:7b", "hf.co/a/b:Q4", "x:latest"])
digests = st.sampled_from(["a" * 64, "b" * 64, "c" * 64])
sizes = st.integers(0, 20_000_000_000)
seconds = st.one_of(st.none(), st.floats(0, 5000, allow_nan=False))
runners = st.builds(
    Runner,
    name=names,
    digest=digests,
    context_length=st.one_of(st.none(), st.integers(4, 262_144)),
    size_bytes=sizes,
    size_vram_bytes=sizes,
    expires_at=st.one_of(st.none(), st.datetimes(timezones=st.just(UTC))),
)
settings = st.dictionaries(
    st.sampled_from(["num_ctx", "temperature", "pinned", "capability.tools"]),
    st.one_of(st.booleans(), st.integers(0, 9999)),
    max_size=3,
)
capabilities = st.dictionaries(
    st.sampled_from(["completion", "tools", "vision", "embedding", "coding"]),
    st.builds(
        Capability, value=st.booleans(), source=st.sampled_from(list(FactSource))
    ),
)


def _maybe(strategy: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.one_of(st.just(msgspec.UNSET), strategy)


_progress = {"completed_bytes": sizes, "total_bytes": st.one_of(st.none(), sizes)}
_failure = {"kind": st.sampled_from(["disk_full", "stalled"]), "message": st.text()}
_instances = {"instance": st.sampled_from(["one", "two"])}

_FIELDS: dict[str, Mapping[str, st.SearchStrategy[object]]] = {
    "ModelDiscovered": {"digest": digests, "size_bytes": sizes},
    "PullStarted": _instances,
    "PullProgressed": _progress,
    "PullCompleted": {"digest": digests, "size_bytes": sizes, "duration_s": seconds},
    "PullFailed": _failure,
    "PullInterrupted": _instances,
    "UpdateStarted": _instances,
    "UpdateProgressed": _progress,
    "UpdateFailed": _failure,
    "UpdateInterrupted": _instances,
    "CancelRequested": {
        "activity": st.sampled_from(["pull", "update", "load", "reload"]),
        **_instances,
    },
    "UpdateUnchanged": {"digest": digests},
    "ModelUpdated": {"digest": digests, "size_bytes": sizes, "duration_s": seconds},
    "LoadStarted": _instances,
    "ModelLoaded": {"runner": runners, "duration_s": seconds},
    "LoadFailed": _failure,
    "LoadInterrupted": _instances,
    "ReloadStarted": _instances,
    "ReloadCompleted": {"runner": runners, "duration_s": st.floats(0, 5000)},
    "ReloadUnchanged": {
        "expires_at": st.one_of(st.none(), st.datetimes(timezones=st.just(UTC))),
        "duration_s": st.floats(0, 5000),
    },
    "ReloadFailed": _failure,
    "ReloadInterrupted": _instances,
    "RunnerChanged": {"runner": runners},
    "KeepAliveRenewed": {"expires_at": st.datetimes(timezones=st.just(UTC))},
    "ModelUnloaded": {"reason": st.sampled_from(list(UnloadReason))},
    "ModelUsed": {
        "purpose": st.text(),
        "endpoint": _maybe(st.sampled_from(["/api/chat", "/v1/messages"])),
        "client": _maybe(st.sampled_from(["ann", "ben", "127.0.0.1"])),
        "role": _maybe(st.sampled_from(["coding", "general"])),
        "duration_s": _maybe(st.floats(0, 5000, allow_nan=False)),
        "first_token_s": _maybe(st.floats(0, 5000, allow_nan=False)),
        "prompt_tokens": _maybe(st.integers(0, 99_999)),
        "output_tokens": _maybe(st.integers(0, 99_999)),
        "estimated_tokens": _maybe(st.integers(0, 99_999)),
        "outcome": _maybe(st.sampled_from(list(UseOutcome))),
        "loaded_by_it": _maybe(st.booleans()),
        "count": _maybe(st.integers(1, 99)),
        "uncertainty_s": _maybe(st.floats(0, 5000, allow_nan=False)),
        "expires_at": _maybe(st.datetimes(timezones=st.just(UTC))),
    },
    "UseFailed": {
        "endpoint": st.just("/api/chat"),
        "client": st.just("ann"),
        "role": _maybe(st.sampled_from(["coding", "general"])),
        "estimated_tokens": _maybe(st.integers(0, 99_999)),
        "started_at": st.datetimes(timezones=st.just(UTC)),
        "duration_s": st.floats(0, 5000, allow_nan=False),
        "outcome": st.sampled_from(list(UseOutcome)),
    },
    "CapabilitiesDetected": {
        "digest": digests,
        "weights": digests,
        "context_trained": st.integers(4, 1_000_000),
        "context_source": st.sampled_from(list(FactSource)),
        "capabilities": capabilities,
        "ranks": st.dictionaries(
            st.sampled_from(["general", "coding"]), st.integers(1, 9)
        ),
    },
    "ConfigurationChanged": {"set": settings, "was": settings, "note": st.text()},
    "NodeReached": {"version": st.just("0.32.15"), "url": st.just("http://a")},
    "NodeLost": {"kind": st.just("node_unreachable"), "message": st.text()},
}


def fact(name: str) -> st.SearchStrategy[AnyFact]:
    """Return a strategy for facts of one type."""
    kind: Callable[..., AnyFact] = getattr(facts, name)
    return st.builds(kind, **_FIELDS.get(name, {}))


@st.composite
def histories(
    draw: st.DrawFn, *, longest: int = 40, models: st.SearchStrategy[str] = names
) -> list[RecordedEvent]:
    """Draw a whole log, legal step by step, over a few models and their node."""
    lifecycles: dict[str, Lifecycle] = {}
    versions: dict[str, int] = {}
    events = []
    moment = START
    for position in range(1, draw(st.integers(0, longest)) + 1):
        if draw(st.integers(0, 9)) == 0:
            stream: str = node_stream("local")
            type_ = draw(st.sampled_from(["NodeReached", "NodeLost"]))
        else:
            stream = model_stream("local", draw(models))
            nexts = TRANSITIONS[lifecycles.get(stream, INITIAL)]
            type_ = draw(st.sampled_from(sorted(nexts)))
            lifecycles[stream] = nexts[type_]
        versions[stream] = versions.get(stream, 0) + 1
        moment += timedelta(seconds=draw(st.integers(0, 5000)))
        events.append(
            RecordedEvent(
                position=Position(position),
                stream=stream,
                version=versions[stream],
                event_id=f"event-{position}",
                type=type_,
                schema=draw(st.integers(1, SCHEMAS[type_])),
                data=draw(fact(type_)),
                occurred_at=moment,
                recorded_at=moment,
                actor=draw(st.sampled_from(["cli:ann", "api:agents", "reconciler"])),
                cause=draw(st.sampled_from(list(Cause))),
                correlation_id=None,
                causation_id=None,
                hash=f"{position:064x}",
            )
        )
    return events


class Foldable(Protocol):
    """A view, with or without snapshots."""

    def apply(self, event: RecordedEvent) -> None:
        """Apply one event."""
        ...


def fold(view: Foldable, events: Iterable[RecordedEvent]) -> None:
    """Apply events to a view, in order."""
    for event in events:
        view.apply(event)
