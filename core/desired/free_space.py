"""Which models to delete to free disk space on the server."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from herdbook.core.desired.plan import DeleteStep, deletions
from herdbook.core.reconcile.observed_uses import idle_since
from herdbook.events.lifecycle import ModelState
from herdbook.projections.status import ModelStatus

_NEVER = datetime.min.replace(tzinfo=UTC)

IDLE_AFTER: Final = timedelta(days=1)
"""Time after which a loaded model that was not used is not in use any more, and a model
that was never used is not new any more."""


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Models that share weights: only deleting all of them frees the space.

    Attributes:
        steps: The deletions; the last one frees the space.
        frees_bytes: Disk space that they free together, bytes.
        last_used_at: When one of them was last used; None if no use is recorded.
        idle_since: When they became idle: loaded but not used; None if they are not
            loaded.
    """

    steps: tuple[DeleteStep, ...]
    frees_bytes: int
    last_used_at: datetime | None
    idle_since: datetime | None = None


class FreeSpace(msgspec.Struct, frozen=True, kw_only=True):
    """A proposal of what to delete.

    Attributes:
        wanted_bytes: The disk space that is wanted, bytes.
        chosen: What to delete, the least recently used first.
        alternatives: What else could be deleted, in the same order.
    """

    wanted_bytes: int
    chosen: tuple[Group, ...]
    alternatives: tuple[Group, ...]

    @property
    def frees_bytes(self) -> int:
        """Disk space that the proposal frees, bytes."""
        return sum(group.frees_bytes for group in self.chosen)

    @property
    def is_enough(self) -> bool:
        """Whether the proposal frees what is wanted."""
        return self.frees_bytes >= self.wanted_bytes


def free_space(
    models: Iterable[ModelStatus],
    wanted_bytes: int,
    *,
    keep: Collection[str] = (),
    now: datetime | None = None,
) -> FreeSpace:
    """Choose models to delete.

    Models that are loaded, in use, pinned or to be kept are never chosen, nor are
    models whose weights such a model shares: deleting them frees nothing. Of the others
    the least recently used go first, and of those that were never used the largest. One
    that was never used counts as used when it became available, for ``IDLE_AFTER``: it
    may have been pulled for a use that comes next. A model that turns out not to be
    needed is left out again.

    A loaded model without expiry that nobody has used for ``IDLE_AFTER`` counts as the
    others: it is loaded only because nothing has unloaded it.

    Args:
        models: All models of the server.
        wanted_bytes: The disk space that is wanted, bytes.
        keep: Names of models to keep, such as those of a desired set.
        now: The present time; None to keep all loaded models.
    """
    present = [each for each in models if each.present]
    groups = _groups(present, keep, now)
    count, freed = 0, 0
    while count < len(groups) and freed < wanted_bytes:
        freed += groups[count].frees_bytes
        count += 1
    chosen: list[Group] = []
    left: list[Group] = []
    for group in reversed(groups[:count]):
        if freed - group.frees_bytes >= wanted_bytes:
            freed -= group.frees_bytes
            left.append(group)
        else:
            chosen.append(group)
    return FreeSpace(
        wanted_bytes=wanted_bytes,
        chosen=tuple(reversed(chosen)),
        alternatives=(*reversed(left), *groups[count:]),
    )


def _groups(
    present: list[ModelStatus], keep: Collection[str], now: datetime | None
) -> list[Group]:
    """Return the models that may be deleted, in the order in which they are."""
    by_weights: dict[str, list[ModelStatus]] = {}
    for status in present:
        if status.remote_host is None:  # cloud models take no disk space
            by_weights.setdefault(status.weights or status.name, []).append(status)
    found = [
        (_group(statuses), statuses)
        for statuses in by_weights.values()
        if all(_is_deletable(status, keep, now) for status in statuses)
        and any(status.size_bytes for status in statuses)
    ]
    found.sort(
        key=lambda each: (_needed_at(each[0], each[1], now), -each[0].frees_bytes)
    )
    return [group for group, _ in found]


def _needed_at(
    group: Group, statuses: list[ModelStatus], now: datetime | None
) -> datetime:
    """Return when models were last needed, as far as the log shows."""
    if last := group.idle_since or group.last_used_at:
        return last
    began = max((each.since for each in statuses if each.since), default=_NEVER)
    if now is None or now - began >= IDLE_AFTER:
        return _NEVER
    # To the hour: the largest goes first of those that one refresh found.
    return began.replace(minute=0, second=0, microsecond=0)


def _is_deletable(
    status: ModelStatus, keep: Collection[str], now: datetime | None
) -> bool:
    return (
        (status.state is not ModelState.LOADED or _is_idle(status, now))
        and status.activity is None
        and not status.updating
        and status.settings.get("pinned") is not True
        and status.name not in keep
    )


def _is_idle(status: ModelStatus, now: datetime | None) -> bool:
    since = idle_since(status)
    return now is not None and since is not None and now - since >= IDLE_AFTER


def _group(statuses: list[ModelStatus]) -> Group:
    steps = deletions(statuses, [status.name for status in statuses])
    return Group(
        steps=tuple(steps),
        frees_bytes=sum(step.frees_bytes for step in steps),
        last_used_at=max(
            (status.last_used_at for status in statuses if status.last_used_at),
            default=None,
        ),
        idle_since=max(
            (since for status in statuses if (since := idle_since(status))),
            default=None,
        ),
    )
