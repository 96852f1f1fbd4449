"""Texts about one model, shared by the command line and the dashboard."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from herdbook.core import HistoryEntry, ModelState, ModelStatus, Runner
from herdbook.events.facts import (
    PullInterrupted,
    ReloadCompleted,
    RunnerChanged,
    is_forever,
)
from herdbook.presentation import wording
from herdbook.presentation.times import Now
from herdbook.presentation.wording import NOTHING
from herdbook.projections.sentences import bytes_text, counted, gpu_percent

SYMBOLS: Final = {
    ModelState.LOADED: "●",
    ModelState.LOADING: "◐",
    ModelState.AVAILABLE: "○",
    ModelState.ERROR: "▲",
    ModelState.NOT_PRESENT: "–",  # noqa: RUF001 - an empty cell in a table
}
"""A symbol for each state, so that no state is shown by colour alone."""

_RELOADED: Final = (ReloadCompleted.__name__, RunnerChanged.__name__)


def is_interrupted(status: ModelStatus) -> bool:
    """Return whether a model is not present because its pull was interrupted."""
    interrupted = PullInterrupted.__name__
    return status.why is not None and status.why.event == interrupted


def sharing(status: ModelStatus, statuses: Iterable[ModelStatus]) -> list[str]:
    """Return the names of the other present models with the same weights."""
    return [
        other.name
        for other in statuses
        if other.present and other.shares_weights_with(status)
    ]


def weights_text(status: ModelStatus, shared_with: Iterable[str]) -> str:
    """Return the weights of a model: digest, parameters, size and who shares them."""
    if status.remote_host:
        return f"cloud model of {status.remote_host}"
    if not status.present:
        return NOTHING
    count, size = status.parameter_count, status.size_bytes
    parts = [
        (status.weights or wording.UNKNOWN)[:12],
        wording.parameters_text(count) if count else "",
        status.quantization or "",
        bytes_text(size) if size else "",
    ]
    if others := wording.listed(shared_with):
        parts.append(f"shared with {others}")
    return ", ".join(filter(None, parts))


def memory_text(runner: Runner, name: str) -> str:
    """Return the memory of a runner, its place, and the other name that it has."""
    by = "" if runner.name == name else f", loaded as {runner.name}"
    if not runner.size_bytes:  # the server does not report it
        return f"{wording.UNKNOWN}{by}"
    return f"{bytes_text(runner.size_bytes)}, {where_text(runner)}{by}"


def where_text(runner: Runner) -> str:
    """Return where the memory of a runner is: on the GPU, the CPU or both."""
    if not runner.size_vram_bytes:
        return "CPU"
    if runner.size_vram_bytes >= runner.size_bytes:
        return "GPU"
    share = wording.of_text(runner.size_vram_bytes, runner.size_bytes)
    return f"{share} ({gpu_percent(runner)}%) on the GPU"


def expiry_text(runner: Runner, now: Now) -> str:
    """Return when keep-alive unloads a runner; empty if that is unknown."""
    if runner.expires_at is None:
        return ""
    if is_forever(runner.expires_at):
        return "no expiry"
    seconds = (runner.expires_at - now.at).total_seconds()
    if seconds <= 0:
        return "in use, or about to unload"
    return f"unloads in {wording.whole_text(seconds)}"


def uses_text(status: ModelStatus, now: Now) -> str:
    """Return how often a model was used, and the last use."""
    if not status.uses:
        return "never (no use recorded)"
    times = counted(status.uses, "time")
    return f"{times}, last {wording.used_text(status, now)}"


def since_text(status: ModelStatus, now: Now) -> str:
    """Return since when a model is in its state; empty if that is unknown."""
    return f"since {now.clock(status.since)}" if status.since else ""


def state_event(
    status: ModelStatus, entries: Iterable[HistoryEntry]
) -> HistoryEntry | None:
    """Return the event that led to the current state, or the last reload after it.

    Args:
        status: The model.
        entries: Events of the model.
    """
    why, loaded = status.why, status.state is ModelState.LOADED
    found = [
        entry
        for entry in entries
        if why is not None
        and (
            entry.position == why.position
            or (loaded and entry.position > why.position and entry.type in _RELOADED)
        )
    ]
    return max(found, key=lambda entry: entry.position, default=None)


def failure_text(status: ModelStatus, now: Now) -> str:
    """Return the last failure, its time and its reason.

    Empty without a failure, and while something is in progress: a failure next to its
    retry looks like that of the retry.
    """
    failure = status.last_failure
    if failure is None or status.activity is not None:
        return ""
    activity = wording.failed_word(failure.event)
    reason = wording.plain_failure(status.name, failure.message)
    return f"{activity} failed {now.ago(failure.at)}: {reason}"
