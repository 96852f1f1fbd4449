"""Track the models that commands are changing, in this and in other processes.

A refresh that overlaps an unload, a reload or a delete sees an intermediate state and
must not record it: the command records its own outcome. Pulls, and loads of models
that are not loaded, are in the log from their start and need no entry here.

Within a process the tracker knows every command that overlaps a refresh. Other
processes announce the streams that they are changing through ``Instances``, from
before the request until the outcome is recorded. If a refresh sees the effect of such
a command, then either the command is still announced when the answers are compared,
or its events are in the log and the append at the old version fails.

Commands of two processes on one model take turns in the same way: each announces
first and then reads the announcements of the others, so at least one of the two sees
the other, withdraws its announcement and tries again.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager

from herdbook.core.clock import Clock
from herdbook.core.errors import BusyError
from herdbook.core.logging import Logger
from herdbook.events.errors import StoreError
from herdbook.events.instances import Instances
from herdbook.events.streams import StreamName

_log = Logger("herdbook.work")

RETRY_S = 0.1
"""Average seconds until a command retries after a conflict with another instance."""


class WorkTracker:
    """Tracks the models of one node that commands are changing.

    Args:
        instances: Announces the streams of these models to other instances.
        stream_of: Returns the stream of a model.
        clock: The clock.
        node: Name of the node.

    Attributes:
        relay_mark: What an instance with a gateway announces besides streams.
    """

    def __init__(
        self,
        instances: Instances,
        stream_of: Callable[[str], StreamName],
        *,
        clock: Clock,
        node: str,
    ) -> None:
        self._clock = clock
        self._instances = instances
        self._stream_of = stream_of
        self._active: Counter[str] = Counter()
        self._overlapping: set[str] | None = None
        self.relay_mark = f"gateway/{node}"
        self._relays = False

    @property
    def active(self) -> frozenset[str]:
        """The models that commands of this manager are changing."""
        return frozenset(self._active)

    @asynccontextmanager
    async def turn(self, *names: str, within_s: float) -> AsyncIterator[None]:
        """Track models as being changed, once no other instance changes them.

        Args:
            names: The models.
            within_s: How long to wait for other instances, seconds.

        Raises:
            BusyError: Another instance is still changing one of them.
            StoreError: The change cannot be announced, and must not be made.
        """
        deadline = self._clock.monotonic() + within_s
        while True:
            async with self.changing(*names):
                other = await self._changed_elsewhere(names)
                if other is None:
                    yield
                    return
            if self._clock.monotonic() >= deadline:
                raise BusyError(
                    other, "is being changed by another instance", "Try again later"
                )
            # Random, so that two commands do not collide again and again.
            await self._clock.sleep(random.uniform(0.5, 1.5) * RETRY_S)  # noqa: S311

    async def _changed_elsewhere(self, names: Collection[str]) -> str | None:
        """Return the first of these models that another instance is changing."""
        streams = await self.changed_elsewhere()
        return next((n for n in names if self._stream_of(n) in streams), None)

    @asynccontextmanager
    async def changing(self, *names: str) -> AsyncIterator[None]:
        """Track models as being changed while the block runs.

        Raises:
            StoreError: The change cannot be announced, and must not be made.
        """
        self._active.update(names)
        if self._overlapping is not None:
            self._overlapping.update(names)
        try:
            if names:
                await self._announce()
            yield
        finally:
            self._active -= Counter(names)
            if names:
                await self._announce_end()

    @asynccontextmanager
    async def relaying(self) -> AsyncIterator[None]:
        """Announce that this instance runs a gateway, while the block runs.

        Raises:
            StoreError: It cannot be announced.
        """
        self._relays = True
        try:
            await self._announce()
            yield
        finally:
            self._relays = False
            await self._announce_end()

    @contextmanager
    def overlapping(self) -> Iterator[set[str]]:
        """Collect the models that are changed at any time while the block runs.

        One block at a time: refreshes run one after another.
        """
        assert self._overlapping is None, "refreshes run one after another"
        self._overlapping = set(self._active)
        try:
            yield self._overlapping
        finally:
            self._overlapping = None

    async def changed_elsewhere(self) -> frozenset[str]:
        """Return the streams that other living instances are changing."""
        return await self._instances.announced()

    async def _announce(self) -> None:
        marks = [self.relay_mark] if self._relays else []
        streams = sorted(map(self._stream_of, self._active))
        await self._instances.announce([*streams, *marks])

    async def _announce_end(self) -> None:
        """Announce the remaining models; the command has ended, so do not raise."""
        try:
            await self._announce()
        except StoreError as error:
            _log.warning("work_not_announced", reason=str(error))
