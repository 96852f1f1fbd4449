"""What is known of one model, put into words: the same on every screen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from herdbook.core import ModelState, ModelStatus, Runner
from herdbook.events.facts import PullInterrupted
from herdbook.presentation import wording
from herdbook.presentation.times import Now
from herdbook.presentation.wording import NOTHING
from herdbook.projections.sentences import FOREVER_YEAR, bytes_text

SYMBOLS: Final = {
    ModelState.LOADED: "●",
    ModelState.LOADING: "◐",
    ModelState.AVAILABLE: "○",
    ModelState.ERROR: "▲",
    ModelState.NOT_PRESENT: "–",  # noqa: RUF001 - what tables have for nothing
}
"""A sign for each state, so that colour alone carries nothing."""


def is_interrupted(status: ModelStatus) -> bool:
    """Return whether a model is not there because its pull was interrupted."""
    interrupted = PullInterrupted.__name__
    return status.why is not None and status.why.event == interrupted


def sharing(status: ModelStatus, statuses: Iterable[ModelStatus]) -> list[str]:
    """Return the other present models of the same weights, by name."""
    if status.weights is None:
        return []
    return [
        other.name
        for other in statuses
        if other.present
        and other.weights == status.weights
        and other.name != status.name
    ]


def weights_text(status: ModelStatus, shared_with: Iterable[str]) -> str:
    """Return what a model's numbers are: digest, parameters, size, who shares them."""
    if status.remote_host:
        return f"none here: a cloud model of {status.remote_host}"
    if not status.present:
        return NOTHING
    count, size = status.parameter_count, status.size_bytes
    parts = [
        (status.weights or wording.UNKNOWN)[:12],
        wording.parameters_text(count) if count else "",
        status.quantization or "",
        "" if size is None else bytes_text(size),
    ]
    if status.weights is not None:
        parts.append(f"shared with {', '.join(shared_with) or 'nothing'}")
    return ", ".join(filter(None, parts))


def memory_text(runner: Runner, name: str) -> str:
    """Return the memory that a runner holds, and where; and whose name it has."""
    by = "" if runner.name == name else f", loaded as {runner.name}"
    return f"{bytes_text(runner.size_bytes)}, {where_text(runner)}{by}"


def where_text(runner: Runner) -> str:
    """Return where a runner's memory is."""
    if not runner.size_vram_bytes:
        return "on the CPU"
    if runner.size_vram_bytes >= runner.size_bytes:
        return "all on the GPU"
    share = wording.share_text(runner.size_vram_bytes, runner.size_bytes)
    return f"{share} on the GPU"


def expiry_text(runner: Runner, now: Now) -> str:
    """Return when a runner leaves memory by itself; empty where nothing tells."""
    if runner.expires_at is None:
        return ""
    if runner.expires_at.year > FOREVER_YEAR:
        return "kept for ever"
    seconds = (runner.expires_at - now.at).total_seconds()
    if seconds <= 0:
        return "in use, or about to leave memory"
    return f"leaves memory in {wording.whole_text(seconds)}"


def uses_text(status: ModelStatus, now: Now) -> str:
    """Return how often a model was used, and when last."""
    if not status.uses:
        return "never, as far as this log knows"
    times = wording.counted(status.uses, "time")
    return f"{times}, last {wording.used_text(status, now)}"


def since_text(status: ModelStatus, now: Now) -> str:
    """Return since when a model is in its state; empty where nothing tells."""
    return f"since {now.clock(status.since)}" if status.since else ""


def failure_text(status: ModelStatus, now: Now) -> str:
    """Return what failed last, when and why; empty where nothing did."""
    failure = status.last_failure
    if failure is None:
        return ""
    what = wording.failed_word(failure.event)
    reason = wording.plain_failure(status.name, failure.message)
    return f"{what} failed {now.ago(failure.at)}: {reason}"
