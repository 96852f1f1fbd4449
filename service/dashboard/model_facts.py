"""The facts about a model with their sources, and its statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from markupsafe import Markup

from herdbook.core import Capability, ModelStatistics, ModelStatus
from herdbook.presentation import facts, wording
from herdbook.presentation.wording import NOTHING, SOURCES
from herdbook.projections.sentences import bytes_text, duration_text
from herdbook.service.dashboard.charts.state_diagram import state_diagram
from herdbook.service.dashboard.page_request import PageRequest


def known_facts(page: PageRequest, status: ModelStatus) -> list[tuple[str, str, str]]:
    """Return facts with their names and sources."""
    shared_with = facts.sharing(status, page.read_model.statuses())
    trained = wording.trained_context(status)
    source = SOURCES[status.context_source] if trained and status.context_source else ""
    temperature = status.temperature
    found = [
        ("weights", facts.weights_text(status, shared_with), "/api/show"),
        ("family", status.family or "", "/api/show"),
        ("manifest", (status.digest or "")[:12], "/api/tags"),
        ("trained context", _tokens(trained), source),
        (
            "configured context",
            _tokens(status.context_configured or status.context_default),
            "num_ctx" if status.context_configured else "the model's parameters",
        ),
        ("context in effect", _tokens(status.context_in_effect), "/api/ps"),
        (
            "temperature",
            "" if temperature is None else f"{temperature:g}",
            SOURCES[status.temperature_source] if status.temperature_source else "",
        ),
        ("used", facts.uses_text(status, page.now), "log"),
    ]
    always = {
        "weights",
        "trained context",
        "configured context",
        "context in effect",
        "used",
    }
    return [
        (name, text or NOTHING, where if text and text != NOTHING else "")
        for name, text, where in found
        if text or name in always
    ]


def _tokens(number: int | None) -> str:
    return "" if number is None else f"{number:,} tokens"


class Abilities(NamedTuple):
    """Capabilities of a model from one source: those it has, or those it lacks.

    Attributes:
        can: Whether it has them.
        names: The capabilities, as text.
        source: The source.
        evidence: What the source says.
    """

    can: bool
    names: str
    source: str
    evidence: str


def abilities(page: PageRequest, status: ModelStatus) -> list[Abilities]:
    """Return the capabilities that a model has and lacks, by source."""
    known = page.read_model.capabilities(status.name)
    groups: dict[tuple[bool, str], list[str]] = {}
    for name, one in known.items():
        groups.setdefault((one.value, SOURCES[one.source]), []).append(name)
    return [
        Abilities(can, ", ".join(names), source, _evidence(known, names))
        for (can, source), names in groups.items()
    ]


def _evidence(known: Mapping[str, Capability], names: Sequence[str]) -> str:
    seen = [f"{name}: {known[name].evidence}" for name in names if known[name].evidence]
    return "; ".join(seen)


class Figures(NamedTuple):
    """Statistics of a model.

    Attributes:
        rows: Names and numbers.
        diagram: The states with the transitions so far.
    """

    rows: list[tuple[str, str]]
    diagram: Markup


def figures(page: PageRequest, status: ModelStatus) -> Figures | None:
    """Return the statistics of a model; None if there are none."""
    if not status.version:
        return None
    counted = page.read_model.statistics(status.name)
    return Figures(
        [*_counts(counted), *_times(counted, status, page)],
        state_diagram(counted.transitions, status.state),
    )


def _counts(counted: ModelStatistics) -> list[tuple[str, str]]:
    fetched = counted.fetched_bytes
    rate = wording.rate_text(counted.pull_rate_bytes_s)
    mean = counted.mean_load_seconds
    rows = [
        ("pulls and updates", f"{counted.pulls:,}"),
        ("downloaded", wording.joined([bytes_text(fetched), rate]) if fetched else ""),
        (
            "cancelled pulls",
            f"{counted.pulls_stopped:,}" if counted.pulls_stopped else "",
        ),
        ("loads", f"{counted.loads:,}"),
        (
            "load time",
            f"{duration_text(mean)} on average, "
            f"{duration_text(counted.longest_load_seconds)} at most"
            if mean is not None
            else "",
        ),
        ("uses", f"{counted.uses:,}"),
        ("unloads", _by_word(counted.unloads)),
        ("failures", _by_word(counted.failures)),
    ]
    return [(name, text) for name, text in rows if text]


def _by_word(counts: dict[str, int]) -> str:
    words = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {word.replace('_', ' ')}" for word, count in words)


_TIME_IN: Final = {"error": "time in error", "not_present": "time not present"}


def _times(
    counted: ModelStatistics, status: ModelStatus, page: PageRequest
) -> list[tuple[str, str]]:
    """Return the time in each state, including the present one."""
    seconds = dict(counted.seconds_in)
    if counted.since is not None:
        stay = max((page.now.at - counted.since).total_seconds(), 0.0)
        seconds[status.state.value] = seconds.get(status.state.value, 0.0) + stay
    longest_first = sorted(seconds.items(), key=lambda item: -item[1])
    return [
        (_TIME_IN.get(state, f"time {state}"), duration_text(each))
        for state, each in longest_first
        if each >= 0.05
    ]
