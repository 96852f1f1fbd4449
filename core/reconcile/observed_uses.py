"""Uses that the list of runners reveals: each request moves the expiry of its runner.

Pure. The server sets ``expires_at`` to the end of a request plus the keep-alive, and
nothing else moves it but a load or a reload (recorded from a real server). So an expiry
that the log does not know shows that the model was used, and when the last use ended:
between two refreshes, or exactly where the keep-alive is known. How many requests there
were, and by whom, cannot be seen. In doubt nothing is recorded.

A model that another program loaded was requested too. Whether that request generated
anything cannot be seen: a request that only loads leaves the same runner behind.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import msgspec

from herdbook.core.reconcile.server_state import ServerState
from herdbook.events.facts import (
    LoadCancelled,
    LoadFailed,
    LoadInterrupted,
    ModelUsed,
    Runner,
    is_forever,
)
from herdbook.events.lifecycle import ModelState
from herdbook.projections.status import KeepAlive, ModelStatus

FOREVER: Final = timedelta(microseconds=((1 << 63) - 1) // 1000)
"""The keep-alive of ``-1``: the longest duration of Go, 2^63 - 1 ns."""

AT_MOST_EVERY: Final = timedelta(seconds=60)
"""Time between two observed uses of a model that are recorded."""

RUNNING_EVERY: Final = timedelta(seconds=600)
"""The same while a request seems to be running all the time."""

_OWN_LOADS: Final = frozenset(
    {LoadFailed.__name__, LoadCancelled.__name__, LoadInterrupted.__name__}
)
"""Ends of loads by Herdbook after which the server may still load the model."""

_CLOCKS_DIFFER: Final = timedelta(seconds=1)
"""Tolerance for times that the clock of the server decides."""

_ANSWERED_BEFORE: Final = timedelta(milliseconds=100)
"""Longest time from an answer of the server until it sets the expiry."""

_STOPPED_WITHIN: Final = timedelta(seconds=2)
"""Longest time from the end of a request that was cut off, such as by a client that
disconnected, until the server stops and sets the expiry."""

_ROUNDED: Final = timedelta(milliseconds=5)
"""Tolerance for times that were rounded or read one after the other."""

_IN_STEP: Final = timedelta(milliseconds=5)
"""Tolerance for an expiry that moves along with the time, besides the time that the
server took to answer."""


class Sighting(msgspec.Struct, frozen=True, kw_only=True):
    """The expiry of a runner, and between which times it got it.

    Attributes:
        expires_at: The expiry.
        after: When the last refresh with another expiry began; None if there was none.
        until: When the expiry was first seen.
        steps: How often in a row it moved along with the time, as until the end of the
            first request to a runner.
        is_explained: Whether a restart of the server explains it.
    """

    expires_at: datetime
    after: datetime | None
    until: datetime
    steps: int = 0
    is_explained: bool = False


class UseEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """What a refresh knows about uses, besides the state of the server and the log.

    Attributes:
        sightings: The expiry of each runner, by digest.
        recorded_at: When an observed use of a model was recorded last, by its name.
        cut_off_at: When a relayed use of a model was recorded last that ended before
            its answer was complete, by its name.
        unrecorded: Models with uses that the gateway has not recorded yet.
        reloading: Those of them that a request may be loading with other options.
        sees_loads: Whether a load by another program can be distinguished from one by
            a client of a gateway.
    """

    sightings: Mapping[str, Sighting]
    recorded_at: Mapping[str, datetime]
    cut_off_at: Mapping[str, datetime] = {}
    unrecorded: Collection[str] = ()
    reloading: Collection[str] = ()
    sees_loads: bool = True


class ObservedUse(NamedTuple):
    """A use that the state of the server shows.

    Attributes:
        fact: The fact to record.
        expires_at: When the runner expires since then.
        ended_at: The latest time at which the use may have ended.
    """

    fact: ModelUsed
    expires_at: datetime
    ended_at: datetime


def sightings(
    known: Mapping[str, Sighting],
    previous: ServerState | None,
    state: ServerState,
    *,
    restarted: bool = False,
) -> dict[str, Sighting]:
    """Return the expiries of the runners in memory, by digest.

    Args:
        known: Those at the previous refresh.
        previous: The state at that refresh; None at the first.
        state: The state now.
        restarted: Whether the server restarted in between.
    """
    return {
        runner.digest: _sighting(
            runner.expires_at,
            known.get(runner.digest),
            previous,
            state,
            restarted=restarted,
        )
        for runner in state.runners
        if runner.expires_at is not None
    }


def _sighting(
    expires_at: datetime,
    before: Sighting | None,
    previous: ServerState | None,
    state: ServerState,
    *,
    restarted: bool,
) -> Sighting:
    if before is not None and before.expires_at == expires_at:
        explained = restarted or before.is_explained
        return msgspec.structs.replace(before, steps=0, is_explained=explained)
    steps = 0
    if before is not None and previous is not None and before.until == previous.at:
        moved, passed = expires_at - before.expires_at, state.at - previous.at
        tolerance = _IN_STEP + _read_duration(state) + _read_duration(previous)
        steps = before.steps + 1 if abs(moved - passed) <= tolerance else 0
    return Sighting(
        expires_at=expires_at,
        after=(previous.began_at or previous.at) if previous else None,
        until=state.at,
        steps=steps,
        is_explained=restarted,
    )


def _read_duration(state: ServerState) -> timedelta:
    return state.at - (state.began_at or state.at)


def observed_use(
    runner: Runner,
    name: str,
    sharing: Sequence[ModelStatus],
    evidence: UseEvidence,
    at: datetime,
) -> ObservedUse | None:
    """Return the use that the expiry of a runner shows; None if it shows none.

    Args:
        runner: The runner, as listed now.
        name: The model to which the use is attributed.
        sharing: The statuses of all models that are loaded in this runner.
        evidence: What else is known.
        at: Now.
    """
    seen = evidence.sightings.get(runner.digest)
    if seen is None or seen.is_explained:
        return None
    recorded = [one for one in sharing if one.runner is not None]
    known = {one.runner.expires_at for one in recorded if one.runner is not None}
    names = {one.name for one in sharing}
    if (
        not known
        or seen.expires_at in known
        or not names.isdisjoint(evidence.unrecorded)
    ):
        return None
    if seen.expires_at <= at + _CLOCKS_DIFFER:
        return None  # in use beyond its expiry, or to be unloaded after the use
    earliest, latest = _window(recorded, seen, at)
    if any(_may_be_recorded(one, earliest) for one in sharing):
        return None
    cut_off = [evidence.cut_off_at.get(name) for name in names]
    if any(time and time > earliest - _STOPPED_WITHIN for time in cut_off):
        return None
    # After two steps, the same request is probably still running.
    every = AT_MOST_EVERY if seen.steps < 2 else RUNNING_EVERY
    if any(at - time < every for time in _recorded_at(name, sharing, evidence)):
        return None
    uncertainty_s = round((latest - earliest).total_seconds(), 3)
    fact = ModelUsed(uncertainty_s=uncertainty_s, expires_at=seen.expires_at)
    return ObservedUse(fact, seen.expires_at, latest)


def observed_load(
    runner: Runner, status: ModelStatus | None, evidence: UseEvidence, at: datetime
) -> ObservedUse | None:
    """Return the use that the load of a model by another program shows.

    None if the time of the load is not known at all, or if the request may have been
    one of our own.

    Args:
        runner: The new runner, which was loaded for this model.
        status: The status before the load; None for a model that is new in the log.
        evidence: What else is known.
        at: Now.
    """
    seen = evidence.sightings.get(runner.digest)
    if seen is None or not evidence.sees_loads:
        return None
    if seen.until < at:
        return None  # the runner is older than the name, such as after a new pull
    bounds = [] if seen.after is None else [seen.after]
    if status is not None:
        if status.name in evidence.unrecorded:
            return None
        if status.why is not None and status.why.event in _OWN_LOADS:
            return None  # the server may have continued a load that we gave up
        bounds += [time for time in (status.since, status.last_used_at) if time]
    if not bounds:
        return None
    latest = min(seen.until, at)
    earliest = min(max(bounds), latest)
    if is_forever(seen.expires_at):
        ended = seen.expires_at - FOREVER
        if earliest - _ROUNDED <= ended <= latest + _ROUNDED:
            earliest = latest = min(max(ended, earliest), latest)
    fact = ModelUsed(
        uncertainty_s=round((latest - earliest).total_seconds(), 3),
        expires_at=seen.expires_at,
        loaded_by_it=True,
    )
    return ObservedUse(fact, seen.expires_at, latest)


def _may_be_recorded(status: ModelStatus, earliest: datetime) -> bool:
    """Return whether a use that ended since a time may be the last recorded one.

    The server sets the expiry shortly after its answer.
    """
    if status.last_used_at is None:
        return False
    if status.last_used_by is None:  # observed: its own expiry is known
        return status.last_used_at > earliest
    return status.last_used_at > earliest - _ANSWERED_BEFORE


def _window(
    sharing: Sequence[ModelStatus], seen: Sighting, at: datetime
) -> tuple[datetime, datetime]:
    """Return between which times the last use ended."""
    latest = min(seen.until, at)
    loaded = [one.since for one in sharing if one.since is not None]
    observed = [
        one.last_used_at
        for one in sharing
        if one.last_used_at is not None and one.last_used_by is None
    ]
    bounds = [*loaded, *observed, *([seen.after] if seen.after else [])]
    earliest = min(max(bounds, default=latest), latest)
    for keep_alive in _keep_alives(sharing, seen.expires_at):
        low = seen.expires_at - timedelta(seconds=keep_alive.at_most_s)
        high = seen.expires_at - timedelta(seconds=keep_alive.at_least_s)
        if low <= latest + _ROUNDED and high >= earliest - _ROUNDED:
            low, high = min(low, latest), max(high, earliest)
            return max(low, earliest), min(high, latest)
    return earliest, latest


def idle_since(status: ModelStatus) -> datetime | None:
    """Return since when a model that stays loaded without expiry is unused.

    None for other models: a runner with an expiry leaves memory by itself, and of a
    node that does not answer nothing is known.
    """
    runner = status.runner
    if (
        status.state is not ModelState.LOADED
        or status.stale_since is not None
        or status.activity is not None
        or runner is None
        or runner.expires_at is None
        or not is_forever(runner.expires_at)
    ):
        return None
    times = (runner.expires_at - FOREVER, status.since, status.last_used_at)
    return max(time for time in times if time is not None)


def _keep_alives(
    sharing: Sequence[ModelStatus], expires_at: datetime
) -> list[KeepAlive]:
    """Return the keep-alives that a runner may have, the most certain first."""
    known = [one.keep_alive for one in sharing if one.keep_alive is not None]
    known.sort(key=lambda one: one.at_most_s - one.at_least_s)
    forever_s = FOREVER.total_seconds()
    if is_forever(expires_at):
        known.insert(0, KeepAlive(forever_s, forever_s))
    return known


def _recorded_at(
    name: str, sharing: Sequence[ModelStatus], evidence: UseEvidence
) -> Iterator[datetime]:
    """Yield when the last observed use of the model was recorded, or had ended.

    That of a load does not count: the uses after it are to be seen at once.
    """
    if name in evidence.recorded_at:
        yield evidence.recorded_at[name]
    for one in sharing:
        if one.name == name and one.last_used_at and one.last_used_by is None:
            loaded_by_it = one.since is not None and one.last_used_at <= one.since
            if not loaded_by_it:
                yield one.last_used_at
