"""The running instances on a PostgreSQL log: one is alive while it holds its lock.

The lock is an advisory lock of a session, which the server releases when the session
ends for any reason. An instance that loses its connection takes the lock again on a
new one. So an instance counts as dead only if its lock has been free for a while, and
if the one that asks has been connected for as long: after a restart or a failover of
the server, all instances need a moment to return. The times are the server's.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from socket import gethostname
from typing import Self

from herdbook.events.errors import StoreError, StoreUnavailableError
from herdbook.events.instances import Fence, Holder
from herdbook.events.postgres.address import PostgresAddress
from herdbook.events.postgres.errors import NotPermittedError
from herdbook.events.postgres.session import Session, retry_connecting
from herdbook.events.recorded import new_id
from herdbook.events.shared.cancellation import end

HEARTBEAT_S = 1.0
"""Interval at which an instance notes that it is running, seconds."""

GRACE_S = 3.0
"""Time without a lock after which an instance counts as dead, seconds. An instance
needs about a second to reconnect once the server is back."""

FROZEN_S = 8.0
"""Time without a sign of life after which a connected instance loses its leases,
seconds. Longer than any pause of a healthy process, and short enough for a takeover
within 15 s."""


class PostgresInstances:
    """Instances that share a log; use ``open`` to create one.

    Attributes:
        failure: Why this instance cannot note that it is running; None if it can.
    """

    def __init__(self, address: PostgresAddress) -> None:
        self.failure: StoreError | None = None
        self._own = new_id()
        self._session = Session(address, is_durable=False, instance=self._own)
        self._streams: list[str] = []
        self._frozen: dict[str, StoreError] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, address: PostgresAddress) -> AsyncIterator[Self]:
        """Take the lock of a new instance; release it when the block ends.

        The log must exist.

        Raises:
            StoreError: The server cannot be reached, or refuses.
        """
        instances = cls(address)
        try:
            await retry_connecting(instances._record_presence)
            await instances._session.run("remove_old_instances")
            beating = asyncio.create_task(
                instances._heartbeat(), name="herdbook presence"
            )
            try:
                yield instances
            finally:
                try:
                    await end(beating)
                finally:
                    await instances._leave()
        finally:
            await instances._session.close()

    @property
    def own(self) -> str:
        """The id of this instance."""
        return self._own

    def problem(self) -> StoreError | None:
        """Return why this instance cannot refresh its nodes; None if it can.

        It cannot note that it is running, or may not take a lease from an instance that
        does not respond.
        """
        return self.failure or next(iter(self._frozen.values()), None)

    async def alive(self, instance: str) -> bool:
        """Return whether an instance is alive.

        Waits until the answer is certain, at most a few seconds after connecting.

        Raises:
            StoreUnavailableError: The server cannot be reached.
        """
        if instance == self._own:
            return True
        loop = asyncio.get_running_loop()
        while instance not in await self._living():
            age_s = loop.time() - self._session.connected_at
            if age_s >= GRACE_S:
                return False
            await asyncio.sleep(GRACE_S - age_s)
        return True

    async def announce(self, streams: Collection[str]) -> None:
        """Publish the streams that this instance changes, instead of earlier ones."""
        self._streams = list(streams)
        await retry_connecting(self._record_presence, since=self._session.lost_since)

    async def announced(self) -> frozenset[str]:
        """Return the streams that the other living instances announced."""
        living = await self._living()
        others = (living[each] for each in living if each != self._own)
        return frozenset(stream for streams in others for stream in streams)

    async def hold(self, lease: str) -> bool:
        """Take a lease unless another instance has it; return whether it is held.

        The connection of a holder that shows no sign of life is ended, so that the next
        call can take the lease. The holder finds out at its next ``holds``.
        """
        if await self._asks("hold_lease", lease):
            self._frozen.pop(lease, None)
            return True
        try:
            await self._session.once(
                "end_frozen_holder", lease=lease, frozen_s=FROZEN_S
            )
        except NotPermittedError:
            self._frozen[lease] = _may_not_end(
                lease, (await self.holders([lease])).get(lease)
            )
        else:
            self._frozen.pop(lease, None)
        return False

    async def holds(self, lease: str) -> bool:
        """Return whether this instance holds a lease now; take nothing.

        The answer comes from the connection that has the lock, so it is False after the
        connection was lost.
        """
        return await self._asks("holds_lease", lease)

    async def holders(self, leases: Collection[str]) -> dict[str, Holder]:
        """Return the instance that holds each of some leases, if one does."""
        rows = await self._session.run("lease_holders", leases=list(leases))
        return {lease: Holder(*where) for lease, *where in rows}

    def fence(self, lease: str) -> Fence:
        """Return the condition of an append that this instance holds a lease.

        The append asks the server, since the lock ends with the connection.
        """
        return Fence(lease, self._own)

    async def release(self, lease: str) -> None:
        """Release a lease, so that another instance can take it at once."""
        held = await self._session.once("holds_lease", lease=lease, holder=self._own)
        if held == [(True,)]:
            await self._session.once("release_lease", lease=lease)

    async def _asks(self, query: str, lease: str) -> bool:
        rows = await self._session.run(query, lease=lease, holder=self._own)
        return rows == [(True,)]

    async def _living(self) -> dict[str, list[str]]:
        return dict(await self._session.run("living", grace_s=GRACE_S))

    async def _record_presence(self) -> None:
        await self._session.once(
            "note_instance",
            id=self._own,
            streams=self._streams,
            host=gethostname(),
            process=os.getpid(),
        )

    async def _heartbeat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            try:
                await self._record_presence()
            except StoreError as error:
                self.failure = error
            else:
                self.failure = None

    async def _leave(self) -> None:
        with suppress(StoreError):  # then the others wait until the lock is free
            await self._session.once("remove_instance", id=self._own)


def _may_not_end(lease: str, holder: Holder | None) -> StoreError:
    """Return the problem of a lease whose holder this role may not disconnect."""
    where = f"process {holder.process} on {holder.host}" if holder else "a process"
    return StoreUnavailableError(
        f"{where}, which refreshes {lease},",
        "does not respond, and this database user may not end its connection",
        "End that process, or: GRANT pg_signal_backend TO the user of this process",
    )
