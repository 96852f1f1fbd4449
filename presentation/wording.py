"""How facts about models are put into a few words, the same on every screen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from herdbook.core import (
    Candidate,
    Cause,
    FactSource,
    HistoryEntry,
    ModelRegistry,
    ModelStatus,
    NodeStatus,
    RecordedEvent,
)
from herdbook.core.history.explain import Link
from herdbook.presentation.times import Now
from herdbook.projections.sentences import bytes_text, duration_text, tokens_text

NOTHING = "–"  # noqa: RUF001 - what tables have for nothing
UNKNOWN = "?"

SOURCES = {
    FactSource.CONFIGURATION: "configured",
    FactSource.SHOW: "server: show",
    FactSource.TAGS: "server: tags",
    FactSource.REGISTRY: "catalogue",
    FactSource.NAME: "its name",
    FactSource.DEFAULT: "default",
}
"""Where a fact comes from, in words."""

_ABILITIES = ("tools", "coding", "insert", "vision", "thinking", "embedding")
_WORDS = {"coding": "code"}
_UNTOLD = frozenset({"completion", "json"})  # nearly every model

_CAUSES = {
    Cause.COMMAND: "by",
    Cause.CONFIGURATION: "by",
    Cause.OBSERVED: "observed by",
    Cause.SHARED: "same weights, seen by",
    Cause.EXPIRY: "expired, seen by",
    Cause.EVICTION: "evicted, seen by",
    Cause.RESTART: "server restart, seen by",
    Cause.RECOVERY: "recovery, by",
}

LINKS = {
    Link.STATE: "led to the state",
    Link.ARRIVAL: "made it what it is",
    Link.MEMORY: "in memory",
    Link.OPERATION: "same operation",
    Link.SETTING: "in force",
    Link.OTHER: "of another model",
    Link.NODE: "of the server",
}
"""How an event belongs to what led to a state, in words."""


def state_text(status: ModelStatus) -> str:
    """Return a state as a word, with an update that is under way."""
    return status.state.replace("_", " ") + (", updating" if status.updating else "")


def size_text(status: ModelStatus) -> str:
    """Return a model's size; while it is pulled, what it will be."""
    if status.remote_host:
        return "cloud"
    size = status.size_bytes
    if size is None and status.work is not None:
        size = status.work.total_bytes
    return NOTHING if size is None else bytes_text(size)


def context_text(status: ModelStatus, registry: ModelRegistry) -> str:
    """Return the context: ``8k of 128k`` where another than the trained is in use."""
    trained = status.context_trained or _expected_context(status, registry)
    if trained is None:
        return UNKNOWN
    effect = status.context_in_effect
    if effect is None or effect == trained:
        return tokens_text(trained)
    return f"{tokens_text(effect)} of {tokens_text(trained)}"


def _expected_context(status: ModelStatus, registry: ModelRegistry) -> int | None:
    known = registry.find(status.name)
    return known.context if known is not None and known.has_fact("context") else None


def abilities_text(can: Iterable[str]) -> str:
    """Return what sets a model apart, in a fixed order."""
    names = set(can)
    rest = sorted(names - {*_ABILITIES} - _UNTOLD)
    told = [name for name in _ABILITIES if name in names] + rest
    return " ".join(_WORDS.get(name, name) for name in told) or NOTHING


def used_text(status: ModelStatus, now: Now) -> str:
    """Return when a model was last used, and by whom."""
    if status.last_used_at is None:
        return NOTHING
    return f"{now.ago(status.last_used_at)} by {status.last_used_by}"


def who_text(entry: HistoryEntry | RecordedEvent) -> str:
    """Return who asked, or who saw it and why it happened."""
    return f"{_CAUSES[entry.cause]} {entry.actor}"


def share_text(completed: int, total: int | None) -> str:
    """Return how far something is: ``6.6 of 17.4 GB (38 %)``."""
    if not total:
        return bytes_text(completed)
    return f"{of_text(completed, total)} ({percent(completed, total)} %)"


def of_text(completed: int, total: int) -> str:
    """Return ``6.6 of 17.4 GB``: the unit once where it is the same."""
    whole = bytes_text(total)
    part, _, unit = bytes_text(completed).partition(" ")
    return (
        f"{part} of {whole}"
        if whole.endswith(f" {unit}")
        else f"{part} {unit} of {whole}"
    )


def percent(completed: int, total: int) -> int:
    """Return whole percents, 100 only when all is there."""
    return min(completed * 100 // total, 100)


def rate_text(rate: float | None) -> str:
    """Return a rate: ``41 MB/s``; empty where there is none."""
    return "" if rate is None else f"{bytes_text(round(rate))}/s"


def left_text(seconds: float | None) -> str:
    """Return the time left: ``4 min left``; empty where nobody knows."""
    return "" if seconds is None else f"{whole_text(seconds)} left"


def whole_text(seconds: float) -> str:
    """Return a duration of which nobody wants tenths: ``3 s``, ``4 min``."""
    return duration_text(max(round(seconds), 1)).replace(".0 s", " s")


def failed_word(event: str) -> str:
    """Return what failed, of the fact that says so: ``PullFailed`` is ``pull``."""
    return event.removesuffix("Failed").lower()


def plain_failure(name: str, message: str) -> str:
    """Return the message of a failure without the words that the reader sees anyway.

    Logs of older versions have ``cannot be fetched``.
    """
    beginnings = ("cannot be pulled: ", "cannot be fetched: ", "cannot be loaded: ")
    for beginning in (f"{name} ", *beginnings):
        message = message.removeprefix(beginning)
    return message


def node_text(node: NodeStatus, now: Now) -> str:
    """Return its version, and since when it does not answer if it does not."""
    if node.version == 0:
        return "no server has answered yet"
    told = f"Ollama {node.server_version}"
    if node.reached or node.since is None:
        return told
    return f"{told}, stale since {now.clock(node.since)}"


def disk_text(statuses: Iterable[ModelStatus]) -> str:
    """Return what models take on disk, with and without shared weights."""
    sizes = [(s.weights or s.name, s.size_bytes) for s in statuses if s.size_bytes]
    if not sizes:
        return ""
    total = sum(size for _, size in sizes)
    largest: dict[str, int] = {}
    for weights, size in sizes:
        largest[weights] = max(size, largest.get(weights, 0))
    once = sum(largest.values())
    shared = f" ({bytes_text(once)} without shared weights)" if once != total else ""
    return f", {bytes_text(total)} on disk{shared}"


def memory_text(statuses: Iterable[ModelStatus]) -> str:
    """Return the memory of the runners, each counted once."""
    runners = {s.runner.digest: s.runner.size_bytes for s in statuses if s.runner}
    return f"{bytes_text(sum(runners.values()))} in memory" if runners else ""


def reasons_text(candidate: Candidate, now: Now) -> str:
    """Return why a model stands where it does; the view has no clock, ``now`` has."""
    words = list(candidate.reasons)
    if candidate.last_used_at is not None and words[:1] == ["used before"]:
        words[0] = f"used {now.ago(candidate.last_used_at)}"
    return "; ".join(words)


def parameters_text(count: int) -> str:
    """Return a number of parameters: ``7.6 B parameters``."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit} parameters"
    return f"{count} parameters"


def counted(number: int, word: str) -> str:
    """Return a number with its word: ``1 model``, ``1,284 events``."""
    return f"{number:,} {word}" + ("" if number == 1 else "s")


def joined(parts: Sequence[str]) -> str:
    """Return what is there of some parts, with a dot between."""
    return " · ".join(part for part in parts if part)
