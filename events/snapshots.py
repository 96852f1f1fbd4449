"""The contract of a store of snapshots, which are a cache of the log."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from hashlib import sha256
from typing import NamedTuple, Protocol

import msgspec


class StoredView(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot of a view: a cache that can be rebuilt from the log.

    Attributes:
        name: Name of the view.
        version: Format number of the projection; other versions are ignored.
        position: Position of the last event in the snapshot.
        hash: Hash of that event, to detect a snapshot of another log.
        data: The serialized view.
    """

    name: str
    version: int
    position: int
    hash: str
    data: bytes

    @property
    def checksum(self) -> str:
        """SHA-256 of all fields: 64 hexadecimal digits."""
        head = f"{self.name}\0{self.version}\0{self.position}\0{self.hash}\0"
        return sha256(head.encode() + self.data).hexdigest()


class KeptView(NamedTuple):
    """A snapshot that is kept at its position, without its data.

    Attributes:
        version: Format number, as in ``StoredView``.
        position: Position of the last event in the snapshot.
        size: Size of the data, bytes.
    """

    version: int
    position: int
    size: int


class ViewStore(Protocol):
    """A store for the newest snapshot of each view, a cache of the log."""

    async def load_view(self, name: str) -> StoredView | None:
        """Return the snapshot of a view, if there is one.

        Raises:
            CorruptLogError: The snapshot is damaged.
        """
        ...

    async def save_view(self, view: StoredView) -> None:
        """Replace the snapshot of a view.

        Raises:
            StoreError: The snapshot was not saved; the previous one is unchanged.
        """
        ...


class KeptViewStore(Protocol):
    """A store for snapshots of views at many positions, a cache of the log.

    They are independent of the newest snapshots of ``ViewStore``.
    """

    async def keep_view(self, view: StoredView) -> None:
        """Keep a snapshot in addition to those at other positions.

        It replaces a kept snapshot of the same name, version and position.

        Raises:
            StoreError: The snapshot was not saved.
        """
        ...

    async def kept_views(self, name: str) -> Sequence[KeptView]:
        """Return the kept snapshots of a view, sorted by position, then version."""
        ...

    async def load_kept_view(
        self, name: str, *, version: int, position: int
    ) -> StoredView | None:
        """Return a kept snapshot, if there is one.

        Raises:
            CorruptLogError: The snapshot is damaged.
        """
        ...

    async def drop_views(
        self, name: str, *, version: int, positions: Collection[int]
    ) -> None:
        """Delete kept snapshots; positions without one are ignored.

        Raises:
            StoreError: They were not deleted.
        """
        ...


class SnapshotStore(ViewStore, KeptViewStore, Protocol):
    """A store for all snapshots of views."""
