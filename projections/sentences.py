"""A sentence for each event, shared by the command line and the dashboard.

A sentence has what became true, with its reason. Screens show the actor and the
cause next to it. Numbers are rounded for people.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, assert_never

import msgspec

from herdbook.events import facts
from herdbook.events.facts import Fact, Runner, Setting, UnloadReason, UseOutcome
from herdbook.events.recorded import RecordedEvent

_AT_ONCE_S = 0.5
"""An observed use that ended this long before its event needs no other time."""


def bytes_text(number: int) -> str:
    """Return a number of bytes in decimal units, as Ollama shows sizes: 4.9 GB.

    A negative number means unknown: a dash.
    """
    if number < 0:
        return "–"  # noqa: RUF001 - an empty cell in a table
    value = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if value < (999.95 if unit == "GB" else 999.5):  # else it rounds to 1000
            return _rounded(value, unit)
        value /= 1000
    return _rounded(value, "TB")


def _rounded(value: float, unit: str) -> str:
    if unit in ("B", "kB", "MB"):
        return f"{value:.0f} {unit}"
    return f"{value:.1f} {unit}"


def duration_text(seconds: float) -> str:
    """Return a duration in its largest unit or two: 3.1 s, 4 min, 2 h 5 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} days"


def tokens_text(tokens: int) -> str:
    """Return a number of tokens: 4096 is 4k, 128000 is 128k, 900 is 900."""
    if tokens < 1000:
        return str(tokens)
    return f"{tokens // (1000 if tokens % 1000 == 0 else 1024)}k"


def counted(number: int, word: str) -> str:
    """Return a number with its word: ``1 model``, ``1,284 events``."""
    return f"{number:,} {word}" + ("" if number == 1 else "s")


def describe(event: RecordedEvent) -> str:
    """Describe an event in one line, without a full stop."""
    if isinstance(event.data, facts.UnreadableFact):
        return f"cannot be read: {' '.join(event.data.reason.split())[:200]}"
    sentence = " ".join(_SENTENCES[event.type](event.data).split())
    return sentence + _earlier(event) + _left_out(event.data)


def _earlier(event: RecordedEvent) -> str:
    """Return how long before its event an observed use ended; empty if at once.

    Screens show when an event was recorded.
    """
    fact = event.data
    if not isinstance(fact, facts.ModelUsed) or fact.uncertainty_s is msgspec.UNSET:
        return ""
    least_s = max((event.recorded_at - event.occurred_at).total_seconds(), 0.0)
    most_s = least_s + fact.uncertainty_s
    if most_s < _AT_ONCE_S:
        return ""
    least, most = duration_text(least_s), duration_text(most_s)
    if least == most:
        return f", {most} before this was recorded"
    return (
        f", sometime in the {most} before this was recorded"
        if least_s < _AT_ONCE_S
        else (f", {least} to {most} before this was recorded")
    )


def _left_out(fact: Fact) -> str:
    held = fact.held_back if isinstance(fact, facts.DriftFact) else msgspec.UNSET
    if held is msgspec.UNSET:
        return ""
    count = counted(held.changes, "change")
    return f" ({count} in the last {duration_text(held.seconds)} not recorded)"


def setting_text(value: Setting) -> str:
    """Return the value of a setting as a user would type it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | dict):
        return msgspec.json.encode(value).decode()
    return str(value)


def _runner(runner: Runner) -> str:
    parts = []
    if runner.context_length is not None:
        parts.append(f"{tokens_text(runner.context_length)} context")
    if runner.size_bytes:
        parts += [bytes_text(runner.size_bytes), _where(runner)]
    if runner.expires_at is not None and facts.is_forever(runner.expires_at):
        parts.append("no expiry")
    return ", ".join(parts)


def _where(runner: Runner) -> str:
    gpu = gpu_percent(runner)
    return {0: "CPU", 100: "GPU"}.get(gpu, f"{gpu}% on the GPU")


def gpu_percent(runner: Runner) -> int:
    """Return how much of a runner's memory is on the GPU, percent.

    The CPU's share is rounded, as ``ollama ps`` does, but 0 and 100 mean none and all.

    Args:
        runner: A runner whose size is known.
    """
    on_gpu, size = runner.size_vram_bytes, runner.size_bytes
    if on_gpu <= 0 or on_gpu >= size:
        return 0 if on_gpu <= 0 else 100
    on_cpu = (200 * (size - on_gpu) + size) // (2 * size)  # a half is rounded up
    return min(max(100 - on_cpu, 1), 99)


def _of(completed: int | None, total: int | None) -> str:
    if not completed:
        return ""
    if not total:
        return f" at {bytes_text(completed)}"
    share = completed * 100 // total
    return f" at {bytes_text(completed)} of {bytes_text(total)} ({share}%)"


def _took(seconds: float | None) -> str:
    return "" if seconds is None else f" in {duration_text(seconds)}"


def _discovered(fact: Fact) -> str:
    assert isinstance(fact, facts.ModelDiscovered)
    if fact.remote_host:
        return f"found: cloud model of {fact.remote_host}"
    return f"found: {_size(fact.size_bytes)}digest {fact.digest[:12]}"


def _size(number: int) -> str:
    return f"{bytes_text(number)}, " if number else ""  # a list without sizes gives 0


def _deleted(fact: Fact) -> str:
    assert isinstance(fact, facts.ModelDeleted)
    if fact.digest is None and fact.size_bytes is None:
        return "failure dismissed; the model was not on the server"
    size = f": {bytes_text(fact.size_bytes)}" if fact.size_bytes else ""
    return f"deleted{size}"


def _progressed(fact: Fact) -> str:
    assert isinstance(fact, facts.PullProgressed | facts.UpdateProgressed)
    word = "pull" if isinstance(fact, facts.PullProgressed) else "update"
    return f"{word}{_of(fact.completed_bytes, fact.total_bytes)}"


def _pulled(fact: Fact) -> str:
    assert isinstance(fact, facts.PullCompleted)
    return (
        f"pulled{_took(fact.duration_s)}: {_size(fact.size_bytes)}"
        f"digest {fact.digest[:12]}"
    )


_REPEATED: Final = re.compile(r"^\S+ cannot be (pulled|fetched|loaded): ")


def _failed(fact: Fact) -> str:
    match fact:
        case facts.PullFailed():
            return f"pull failed{_at(fact)}: {_reason(fact.message)}"
        case facts.UpdateFailed():
            return f"update failed{_at(fact)}: {_reason(fact.message)}"
        case facts.ReloadFailed():
            return f"reload failed: {_reason(fact.message)}"
        case _:
            assert isinstance(fact, facts.LoadFailed)
            return f"load failed: {_reason(fact.message)}"


def _reason(message: str) -> str:
    """Return the message of a failure without the words that the sentence repeats.

    Logs of older versions have ``cannot be fetched``.
    """
    return _REPEATED.sub("", message)


def _at(fact: facts.PullFailed | facts.UpdateFailed) -> str:
    return _of(fact.completed_bytes, fact.total_bytes)


def _stopped(fact: Fact) -> str:
    match fact:
        case facts.PullCancelled():
            return f"pull cancelled{_of(fact.completed_bytes, fact.total_bytes)}"
        case facts.UpdateCancelled():
            return f"update cancelled{_of(fact.completed_bytes, fact.total_bytes)}"
        case facts.PullInterrupted():
            return f"pull interrupted{_of(fact.completed_bytes, fact.total_bytes)}"
        case _:
            assert isinstance(fact, facts.UpdateInterrupted)
            return f"update interrupted{_of(fact.completed_bytes, fact.total_bytes)}"


def _updated(fact: Fact) -> str:
    assert isinstance(fact, facts.ModelUpdated)
    before = f" (was {fact.previous_digest[:12]})" if fact.previous_digest else ""
    return f"updated{_took(fact.duration_s)}: digest {fact.digest[:12]}{before}"


def _load_started(fact: Fact) -> str:
    assert isinstance(fact, facts.LoadStarted | facts.ReloadStarted)
    word = "reload" if isinstance(fact, facts.ReloadStarted) else "load"
    asked = [f"{name} {setting_text(value)}" for name, value in fact.options.items()]
    if fact.keep_alive is not None:
        asked.append(f"keep_alive {fact.keep_alive}")
    return f"{word} started" + (f": {', '.join(asked)}" if asked else "")


def _loaded(fact: Fact) -> str:
    assert isinstance(fact, facts.ModelLoaded)
    runner = _runner(fact.runner)
    return f"loaded{_took(fact.duration_s)}" + (f": {runner}" if runner else "")


def _reload_completed(fact: Fact) -> str:
    assert isinstance(fact, facts.ReloadCompleted)
    runner = _runner(fact.runner)
    return f"reloaded{_took(fact.duration_s)}" + (f": {runner}" if runner else "")


def _runner_changed(fact: Fact) -> str:
    assert isinstance(fact, facts.RunnerChanged)
    runner = _runner(fact.runner)
    return "reloaded" + (f": {runner}" if runner else "")


def _renewed(fact: Fact) -> str:
    assert isinstance(fact, facts.KeepAliveRenewed)
    if fact.keep_alive is None:
        return "keep-alive renewed"
    return f"keep-alive renewed: {setting_text(fact.keep_alive)}"


def _unloaded(fact: Fact) -> str:
    assert isinstance(fact, facts.ModelUnloaded)
    match fact.reason:
        case UnloadReason.REQUESTED:
            reason = "on request"
        case UnloadReason.EXPIRED:
            reason = "keep-alive expired"
        case UnloadReason.EVICTED:
            reason = f"evicted to make room for {fact.evicted_by or 'another model'}"
        case UnloadReason.SERVER_RESTARTED:
            reason = "the server restarted"
        case UnloadReason.MODEL_REPLACED:
            reason = "the model was replaced"
        case UnloadReason.UNKNOWN:
            reason = "no longer in memory"
        case _:
            assert_never(fact.reason)
    return f"unloaded: {reason}"


def _used(fact: Fact) -> str:
    assert isinstance(fact, facts.ModelUsed)
    if fact.uncertainty_s is not msgspec.UNSET:
        loaded = fact.loaded_by_it is True
        more = ", which loaded it" if loaded else ""
        return f"used by another program{more}"
    if fact.endpoint is msgspec.UNSET:
        role = ""
        if fact.role is not msgspec.UNSET:
            role = f" for the {fact.role.replace('_', ' ')} role"
        return f"used{role}" + (f": {fact.purpose}" if fact.purpose else "")
    parts = [f"used through {fact.endpoint}"]
    count = facts.uses_of(fact)
    if count > 1:
        parts.append(f"{count} requests")
    tokens = [
        counted(number, word)
        for number, word in (
            (fact.prompt_tokens, "prompt token"),
            (fact.output_tokens, "output token"),
            (fact.estimated_tokens, "estimated token"),
        )
        if number is not msgspec.UNSET
    ]
    parts += tokens
    if fact.duration_s is not msgspec.UNSET:
        parts.append(duration_text(fact.duration_s))
    if fact.outcome is not msgspec.UNSET:
        parts += _outcome(fact.outcome, fact.failure or "")
    return ", ".join(parts)


def _outcome(outcome: UseOutcome, failure: str) -> list[str]:
    """Return how a request ended; nothing if it was completed."""
    match outcome:
        case UseOutcome.COMPLETED:
            return []
        case UseOutcome.CLIENT_LEFT:
            return ["client disconnected"]
        case UseOutcome.FAILED:
            return [f"failed: {failure}"]
        case _:
            assert_never(outcome)


def _use_failed(fact: Fact) -> str:
    assert isinstance(fact, facts.UseFailed)
    parts = [f"request to {fact.endpoint}"]
    if fact.count > 1:
        parts = [f"{fact.count} requests to {fact.endpoint}"]
    return ", ".join([*parts, *_outcome(fact.outcome, fact.failure)])


def _not_recorded(fact: Fact) -> str:
    assert isinstance(fact, facts.UsesNotRecorded)
    seconds = (fact.until - fact.since).total_seconds()
    requests = f"{counted(fact.count, 'request')} over {duration_text(seconds)}"
    verb = "was" if fact.count == 1 else "were"
    return f"{requests} {verb} not recorded: {fact.reason}"


def _anchor_received(fact: Fact) -> str:
    assert isinstance(fact, facts.AnchorReceived)
    return f"received an anchor of log {fact.origin} at #{fact.position}"


def _log_archived(fact: Fact) -> str:
    assert isinstance(fact, facts.LogArchived)
    return f"archived events #{fact.first} to #{fact.last} in {fact.file}"


def _detected(fact: Fact) -> str:
    assert isinstance(fact, facts.CapabilitiesDetected)
    names = [name for name, known in sorted(fact.capabilities.items()) if known.value]
    text = f"capabilities: {', '.join(names) or 'none known'}"
    if fact.context_source is facts.FactSource.DEFAULT:
        return text
    return f"{text}; {tokens_text(fact.context_trained)} context"


def _configured(fact: Fact) -> str:
    assert isinstance(fact, facts.ConfigurationChanged)
    parts = [
        f"{name} set to {_quoted(value)} (was: {_was(fact, name)})"
        for name, value in fact.set.items()
    ]
    parts += [f"{name} removed (was: {_was(fact, name)})" for name in fact.unset]
    changed = ", ".join(parts) or "no setting changed"
    return changed + (f': "{fact.note}"' if fact.note else "")


def _was(fact: facts.ConfigurationChanged, name: str) -> str:
    return _quoted(fact.was[name]) if name in fact.was else "not set"


def _quoted(value: Setting) -> str:
    text = setting_text(value)
    return f'"{text}"' if isinstance(value, str) and " " in text else text


def _reached(fact: Fact) -> str:
    assert isinstance(fact, facts.NodeReached)
    return f"server reached at {fact.url}: Ollama {fact.version}"


def _lost(fact: Fact) -> str:
    assert isinstance(fact, facts.NodeLost)
    return f"server lost: {fact.message}"


def _moved(fact: Fact) -> str:
    assert isinstance(fact, facts.NodeMoved)
    return f"moved from {fact.from_url} to {fact.to_url}"


def _node_added(fact: Fact) -> str:
    assert isinstance(fact, facts.NodeAdded)
    return f"added at {fact.url}"


def _node_configured(fact: Fact) -> str:
    assert isinstance(fact, facts.NodeConfigured)
    defaults, chosen = facts.NodeSettings(), fact.settings
    parts = [
        f"{name.replace('_', ' ')} {_node_setting(getattr(chosen, name))}"
        for name in chosen.__struct_fields__
        if getattr(chosen, name) != getattr(defaults, name)
    ]
    return f"settings: {'; '.join(parts) or 'the defaults'}"


def _node_setting(value: object) -> str:
    match value:
        case dict():
            return ", ".join(f"{key}={text}" for key, text in sorted(value.items()))
        case tuple():
            return ", ".join(value)
        case True:
            return "yes"
    return str(value)


def _cancel_requested(fact: Fact) -> str:
    assert isinstance(fact, facts.CancelRequested)
    return f"cancellation of the {fact.activity} requested"


def _plain(sentence: str) -> Callable[[Fact], str]:
    return lambda _: sentence


_SENTENCES: dict[str, Callable[[Fact], str]] = {
    fact.__name__: sentence
    for fact, sentence in (
        (facts.ModelDiscovered, _discovered),
        (facts.ModelVanished, _plain("no longer on the server")),
        (facts.ModelDeleted, _deleted),
        (facts.PullStarted, _plain("pull started")),
        (facts.PullProgressed, _progressed),
        (facts.PullCompleted, _pulled),
        (facts.PullFailed, _failed),
        (facts.PullCancelled, _stopped),
        (facts.PullInterrupted, _stopped),
        (facts.UpdateStarted, _plain("update started")),
        (facts.UpdateProgressed, _progressed),
        (facts.UpdateFailed, _failed),
        (facts.UpdateCancelled, _stopped),
        (facts.UpdateInterrupted, _stopped),
        (facts.UpdateUnchanged, _plain("up to date")),
        (facts.ModelUpdated, _updated),
        (facts.LoadStarted, _load_started),
        (facts.ModelLoaded, _loaded),
        (facts.LoadFailed, _failed),
        (facts.LoadCancelled, _plain("load cancelled")),
        (facts.LoadInterrupted, _plain("load interrupted")),
        (facts.CancelRequested, _cancel_requested),
        (facts.ReloadStarted, _load_started),
        (facts.ReloadCompleted, _reload_completed),
        (facts.ReloadUnchanged, _plain("no reload was needed")),
        (facts.ReloadFailed, _failed),
        (facts.ReloadCancelled, _plain("reload cancelled")),
        (facts.ReloadInterrupted, _plain("reload interrupted")),
        (facts.RunnerChanged, _runner_changed),
        (facts.KeepAliveRenewed, _renewed),
        (facts.ModelUnloaded, _unloaded),
        (facts.ModelUsed, _used),
        (facts.UseFailed, _use_failed),
        (facts.CapabilitiesDetected, _detected),
        (facts.ConfigurationChanged, _configured),
        (facts.NodeReached, _reached),
        (facts.NodeLost, _lost),
        (facts.NodeMoved, _moved),
        (facts.NodeAdded, _node_added),
        (facts.NodeConfigured, _node_configured),
        (facts.NodeRemoved, _plain("removed")),
        (facts.UsesNotRecorded, _not_recorded),
        (facts.AnchorReceived, _anchor_received),
        (facts.LogArchived, _log_archived),
    )
}
