"""Short texts about models, shared by the command line and the dashboard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from herdbook.core import (
    Candidate,
    Cause,
    FactSource,
    HistoryEntry,
    ModelRegistry,
    ModelState,
    ModelStatus,
    NodeStatus,
    RecordedEvent,
)
from herdbook.core.actor import RECONCILER
from herdbook.core.diagnosis import Diagnosis, Level
from herdbook.core.history.explain import Link
from herdbook.presentation.times import Now
from herdbook.projections.sentences import (
    bytes_text,
    counted,
    duration_text,
    tokens_text,
)
from herdbook.projections.status import Load

NOTHING = "–"  # noqa: RUF001 - an empty cell in a table
UNKNOWN = NOTHING

SOURCES = {
    FactSource.CONFIGURATION: "configured",
    FactSource.SHOW: "/api/show",
    FactSource.TAGS: "/api/tags",
    FactSource.REGISTRY: "catalogue",
    FactSource.NAME: "model name",
    FactSource.DEFAULT: "default",
}
"""Labels of the sources of facts."""

_CAPABILITIES = ("tools", "coding", "insert", "vision", "thinking", "embedding")
_LABELS = {"coding": "code"}
_COMMON = frozenset({"completion", "json"})  # not shown: nearly every model has them

_UNREQUESTED = {
    Cause.OBSERVED: "observed",
    Cause.SHARED: "same weights, observed",
    Cause.EXPIRY: "observed",  # the sentence of the event has the reason
    Cause.EVICTION: "observed",
    Cause.RESTART: "observed",
    Cause.RECOVERY: "recorded after a crash",
}
"""The causes of events that nobody asked for."""

LINKS = {
    Link.STATE: "cause",
    Link.ARRIVAL: "origin",
    Link.MEMORY: "in memory",
    Link.OPERATION: "step",
    Link.SETTING: "setting",
    Link.OTHER: "other model",
    Link.NODE: "server",
}
"""Labels of the events of an explanation."""


_CHECKS = {"kept_head": "saved head"}
"""Labels of the doctor's checks whose names are not those of the documentation."""


def problems_text(found: Iterable[Diagnosis]) -> str:
    """Return the number of results by level: ``1 problem, 2 warnings``."""
    levels = Counter(each.level for each in found)
    counts = [
        counted(levels[level], level.value)
        for level in (Level.PROBLEM, Level.WARNING, Level.NOTICE)
        if levels[level]
    ]
    return ", ".join(counts) or "no problems"


def check_text(check: str) -> str:
    """Return the label of a check of the doctor."""
    return _CHECKS.get(check, check.replace("_", " "))


def state_text(status: ModelStatus) -> str:
    """Return the state in words, with a running update."""
    state = str(status.lifecycle)
    stale = status.stale_since is not None and status.state is ModelState.LOADED
    return f"was {state}" if stale else state


def size_text(status: ModelStatus) -> str:
    """Return the size of a model; during a pull, the size that it will have."""
    if status.remote_host:
        return "cloud"
    size = status.size_bytes
    if size is None and status.work is not None:
        size = status.work.total_bytes
    return bytes_text(size) if size else NOTHING  # a list without sizes gives 0


def context_text(status: ModelStatus, registry: ModelRegistry) -> str:
    """Return the context: ``8k of 128k`` if it differs from the trained context."""
    trained = trained_context(status) or _expected_context(status, registry)
    configured = status.context_configured or status.context_default
    if not trained:
        effect = status.context_in_effect or configured
        return tokens_text(effect) if effect else UNKNOWN
    # Ollama silently reduces a larger context to the trained one.
    effect = status.context_in_effect or min(configured or trained, trained)
    if effect == trained:  # an old server reports 0 for unknown
        return tokens_text(trained)
    return f"{tokens_text(effect)} of {tokens_text(trained)}"


def trained_context(status: ModelStatus) -> int | None:
    """Return the trained context, tokens; None if it is unknown or only assumed."""
    if status.context_source is FactSource.DEFAULT:
        return None
    return status.context_trained or None


def _expected_context(status: ModelStatus, registry: ModelRegistry) -> int | None:
    known = registry.find(status.name)
    return known.context if known is not None and known.has_fact("context") else None


def capabilities_text(capabilities: Iterable[str]) -> str:
    """Return the notable capabilities of a model, in a fixed order."""
    names = set(capabilities)
    rest = sorted(names - {*_CAPABILITIES} - _COMMON)
    ordered = [name for name in _CAPABILITIES if name in names] + rest
    return " ".join(_LABELS.get(name, name) for name in ordered) or NOTHING


def load_text(load: Load | None, now: Now) -> str:
    """Return when a model was loaded, and who loaded it."""
    return f"{now.ago(load.at)}, {who_text(load)}" if load else UNKNOWN


def used_text(status: ModelStatus, now: Now) -> str:
    """Return when a model was last used, and the actor."""
    if status.last_used_at is None:
        return NOTHING
    if status.last_used_by is None:
        return f"{now.ago(status.last_used_at)}, observed"
    return f"{now.ago(status.last_used_at)} by {status.last_used_by}"


def who_text(entry: HistoryEntry | RecordedEvent | Load) -> str:
    """Return who asked for an event, or that it was observed."""
    words = _UNREQUESTED.get(entry.cause, "")
    if words and entry.actor == RECONCILER:
        return words
    return f"{words} by {entry.actor}".lstrip()


def position_text(position: int) -> str:
    """Return the number of the last event: ``event 1,204``."""
    return f"event {position:,}" if position else "no events yet"


def share_text(completed: int, total: int | None) -> str:
    """Return progress: ``6.6 of 17.4 GB (38%)``."""
    if not total:
        return bytes_text(completed)
    return f"{of_text(completed, total)} ({percent(completed, total)}%)"


def of_text(completed: int, total: int) -> str:
    """Return ``6.6 of 17.4 GB``, with one unit if both are the same."""
    whole = bytes_text(total)
    part, _, unit = bytes_text(completed).partition(" ")
    return (
        f"{part} of {whole}"
        if whole.endswith(f" {unit}")
        else f"{part} {unit} of {whole}"
    )


def percent(completed: int, total: int) -> int:
    """Return a percentage, rounded down, so that 100 means complete."""
    return min(completed * 100 // total, 100)


def rate_text(rate: float | None) -> str:
    """Return a rate: ``41 MB/s``; empty if unknown."""
    return "" if rate is None else f"{bytes_text(round(rate))}/s"


def left_text(seconds: float | None) -> str:
    """Return the time left: ``4 min left``; empty if unknown."""
    return "" if seconds is None else f"{whole_text(seconds)} left"


def whole_text(seconds: float) -> str:
    """Return a duration without tenths: ``3 s``, ``4 min``."""
    return duration_text(max(round(seconds), 1)).replace(".0 s", " s")


def failed_word(event: str) -> str:
    """Return the activity of a failure event: ``pull`` for ``PullFailed``."""
    return event.removesuffix("Failed").lower()


def plain_failure(name: str, message: str) -> str:
    """Return the message of a failure without the words that the reader sees anyway.

    Logs of older versions have ``cannot be fetched``.
    """
    for state in ("cannot be pulled: ", "cannot be fetched: ", "cannot be loaded: "):
        message = message.removeprefix(f"{name} {state}").removeprefix(state)
    return message


def node_text(node: NodeStatus, now: Now) -> str:
    """Return the version of a node, and since when it does not answer."""
    if node.version == 0:
        return "no server has answered yet"
    version = f"Ollama {node.server_version}" if node.server_version else ""
    if node.reached or node.since is None:
        return version
    since = now.clock(node.since)
    return f"{version}, stale since {since}" if version else f"no answer since {since}"


def disk_bytes(statuses: Iterable[ModelStatus]) -> int:
    """Return the disk usage of models, bytes; models of the same weights count once."""
    largest: dict[tuple[str, str], int] = {}
    for status in statuses:
        weights = status.node, status.weights or status.name
        largest[weights] = max(status.size_bytes or 0, largest.get(weights, 0))
    return sum(largest.values())


def disk_text(statuses: Iterable[ModelStatus]) -> str:
    """Return the disk usage of models: shared weights once, then for each model."""
    sized = [status for status in statuses if status.size_bytes]
    if not sized:
        return ""
    total = sum(status.size_bytes or 0 for status in sized)
    once, each = bytes_text(disk_bytes(sized)), bytes_text(total)
    more = f" ({each} with shared weights counted for each model)"
    return f", {once} on disk{more if each != once else ''}"


def memory_text(statuses: Iterable[ModelStatus]) -> str:
    """Return the memory of all runners, each counted once; empty without any."""
    runners = {
        (s.node, s.runner.digest): s.runner.size_bytes for s in statuses if s.runner
    }
    if not runners:
        return ""
    total = sum(runners.values())
    return f"{bytes_text(total)} in memory" if total else "memory not known"


def reasons_text(candidate: Candidate, now: Now) -> str:
    """Return the reasons for the rank of a model, with the time of its last use."""
    words = list(candidate.reasons)
    if candidate.last_used_at is not None and words[0].startswith("used "):
        used = "used" if words[0] == "used before" else words[0]
        words[0] = f"{used} {now.ago(candidate.last_used_at)}"
    return "; ".join(words)


def parameters_text(count: int) -> str:
    """Return a number of parameters: ``7.6 B parameters``."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit} parameters"
    return f"{count} parameters"


def joined(parts: Sequence[str]) -> str:
    """Join the parts that are not empty with a dot."""
    return " · ".join(part for part in parts if part)


def listed(names: Iterable[str], at_most: int = 5) -> str:
    """Return names in a sentence; of many, the first and the number of the others."""
    shown = [*names]
    more = len(shown) - at_most
    if more < 2:  # the number of one other would be no shorter than its name
        return ", ".join(shown)
    return f"{', '.join(shown[:at_most])} and {more:,} more"
