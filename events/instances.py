"""The contract of the instances on a log: which are alive, and who holds a lease.

An activity belongs to the instance that started it, and only the activity of a dead
instance may be recorded as interrupted. A living instance must never be taken for
dead.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple, Protocol

import msgspec


def _always() -> bool:
    return True


class Fence(NamedTuple):
    """The condition of an append that an instance holds a lease when it is written.

    A process that was stopped, and continues after another instance took the lease,
    cannot append under it any more.

    Attributes:
        lease: Name of the lease.
        holder: Id of the instance that must hold it.
        is_held: Returns whether it is held, where the lock belongs to this process and
            nobody can take it away; where the database has the lock, the append asks
            there.
    """

    lease: str
    holder: str
    is_held: Callable[[], bool] = _always


class Holder(msgspec.Struct, frozen=True):
    """The instance that holds a lease.

    Attributes:
        instance: Its id.
        host: Name of the machine that it runs on; empty if it is not known.
        process: Its process id there; None if it is not known.
    """

    instance: str
    host: str = ""
    process: int | None = None


class Instances(Protocol):
    """The instances of Herdbook on a log; one is alive while it holds its lock."""

    @property
    def own(self) -> str:
        """The id of this instance."""
        ...

    async def alive(self, instance: str) -> bool:
        """Return whether an instance is alive, in this process or another.

        Raises:
            StoreUnavailableError: It cannot be found out.
        """
        ...

    async def announce(self, streams: Collection[str]) -> None:
        """Publish the streams that this instance changes, instead of earlier ones.

        Raises:
            StoreUnavailableError: The streams cannot be published.
        """
        ...

    async def announced(self) -> frozenset[str]:
        """Return the streams that the other living instances announced.

        Raises:
            StoreUnavailableError: The announcements cannot be read.
        """
        ...

    async def hold(self, lease: str) -> bool:
        """Take a lease unless another instance has it; return whether it is held.

        A lease is held by at most one instance at a time, until it is released, its
        instance ends, or (in a database) its connection is lost.

        Args:
            lease: Its name, such as the stream of a node.

        Raises:
            StoreError: It cannot be found out.
        """
        ...

    async def holds(self, lease: str) -> bool:
        """Return whether this instance holds a lease now; take nothing.

        Raises:
            StoreError: It cannot be found out.
        """
        ...

    async def holders(self, leases: Collection[str]) -> Mapping[str, Holder]:
        """Return the instance that holds each of some leases, if one does.

        Raises:
            StoreError: It cannot be found out.
        """
        ...

    def fence(self, lease: str) -> Fence:
        """Return the condition of an append that this instance holds a lease."""
        ...

    async def release(self, lease: str) -> None:
        """Release a lease, so that another instance can take it at once.

        Raises:
            StoreError: It could not be released; it ends with this instance.
        """
        ...
