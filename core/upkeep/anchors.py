"""Anchors of a log at intervals: to a file, to a URL, and to another Herdbook.

Each destination has an interval of its own, so that one that fails delays no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

from herdbook.core.clock import Clock
from herdbook.core.errors import CallerError
from herdbook.core.log.location import LogLocation
from herdbook.core.log.storage import Storage
from herdbook.core.logging import Logger
from herdbook.core.proof.anchor import Anchor
from herdbook.core.proof.anchor_file import append_anchor, read_anchor_file
from herdbook.core.proof.keys import check_key, sign
from herdbook.core.proof.proof import make_anchor
from herdbook.core.transfer.backup import check_outside
from herdbook.core.upkeep.publish import check_url, post_text, post_to_herdbook
from herdbook.core.upkeep.recurring import Recurring, check_interval

_log = Logger("herdbook.anchors")


class AnchorSchedule(msgspec.Struct, frozen=True, kw_only=True):
    """When anchors are made, and where they go.

    Attributes:
        every_s: The interval, seconds.
        files: Files that they are appended to.
        urls: URLs that their text is sent to, with POST.
        herdbooks: Addresses of the services of other Herdbooks, which record them.
        token: The token for those services; empty if they need none.
        key: Signs them; None for unsigned anchors.
    """

    every_s: float
    files: tuple[Path, ...] = ()
    urls: tuple[str, ...] = ()
    herdbooks: tuple[str, ...] = ()
    token: str = ""
    key: Path | None = None

    def check(self) -> None:
        """Check the schedule.

        Raises:
            CallerError: The interval is too short, there is no destination, one is not
                valid, or the key cannot sign.
        """
        check_interval(self.every_s)
        if not self.files and not self.urls and not self.herdbooks:
            raise CallerError(
                "the anchors", "have no destination", "Add a file or a URL"
            )
        for url in (*self.urls, *self.herdbooks):
            check_url(url)
        for file in self.files:
            if not file.parent.is_dir():
                raise CallerError(
                    str(file),
                    "is in a directory that does not exist",
                    f"Create {file.parent} first",
                )
            if file.exists():
                read_anchor_file(file)
        if self.key is not None:
            check_key(self.key)


class _Destination(NamedTuple):
    """Where anchors go.

    Attributes:
        name: The name of the task.
        publish: Takes an anchor there.
        last_at: The time of the last anchor there, if that is known.
    """

    name: str
    publish: Callable[[Anchor], Awaitable[None]]
    last_at: datetime | None = None


def scheduled_anchors(
    log: LogLocation, schedule: AnchorSchedule, *, clock: Clock
) -> list[Recurring]:
    """Return the recurring work that makes anchors of a log, one per destination.

    Raises:
        CallerError: The schedule is not valid.
    """
    schedule.check()
    for file in schedule.files:
        check_outside(file, log)
    return [
        Recurring(
            to.name,
            schedule.every_s,
            partial(_anchor, log, schedule.key, to, clock),
            clock=clock,
            last_at=to.last_at,
        )
        for to in _destinations(schedule, clock)
    ]


def _destinations(schedule: AnchorSchedule, clock: Clock) -> list[_Destination]:
    found = [
        _Destination("anchors_to_file", partial(_write, file), _last_in(file))
        for file in schedule.files
    ]
    found += [
        _Destination("anchors_to_url", partial(post_text, check_url(url), clock=clock))
        for url in schedule.urls
    ]
    found += [
        _Destination(
            "anchors_to_herdbook",
            partial(
                post_to_herdbook, check_url(url), token=schedule.token, clock=clock
            ),
        )
        for url in schedule.herdbooks
    ]
    names = [each.name for each in found]
    return [
        each._replace(name=f"{each.name}_{names[:at].count(each.name) + 1}")
        if names.count(each.name) > 1
        else each
        for at, each in enumerate(found)
    ]


async def _anchor(
    log: LogLocation, key: Path | None, to: _Destination, clock: Clock
) -> int:
    """Make an anchor and publish it; return its position, 0 for an empty log."""
    async with Storage.open(log, clock, reading=True) as storage:
        if not (await storage.store.head()).position:
            return 0
        anchor = await make_anchor(storage, clock)
    await to.publish(anchor if key is None else sign(anchor, key))
    _log.info("anchor_published", destination=to.name, position=anchor.position)
    return anchor.position


async def _write(file: Path, anchor: Anchor) -> None:
    await asyncio.to_thread(append_anchor, file, anchor)  # it syncs the file


def _last_in(file: Path) -> datetime | None:
    anchors = read_anchor_file(file) if file.exists() else []
    return anchors[-1].time if anchors else None
