"""The Merkle tree over the events of a log.

A leaf is the hash of an event, its 32 bytes, in the order of positions. The roots of
complete blocks of events are stored with the snapshots of the views: a cache with a
checksum, so that an anchor of a long log reads only its newest events.
"""

from __future__ import annotations

from collections.abc import Iterable

from herdbook.core.log.storage import Storage
from herdbook.events import rfc9162
from herdbook.events.archive_file import (
    BLOCK,
    UNREADABLE,
)
from herdbook.events.errors import CallerError, CorruptLogError
from herdbook.events.recorded import StoredEvent
from herdbook.events.snapshots import StoredView
from herdbook.events.store import ArchivedStore

_CACHE = "merkle_tree"
_FORM = 1


class EventTree:
    """The tree over the first events of a log; ``read`` makes one.

    Attributes:
        size: The number of events.
    """

    def __init__(self, storage: Storage, size: int, blocks: list[bytes]) -> None:
        self.size = size
        self._storage = storage
        self._blocks = blocks
        self._leaves: dict[int, list[bytes]] = {}
        self._above: dict[tuple[int, int], bytes] = {}
        self._within: dict[tuple[int, int], bytes] = {}

    @classmethod
    async def read(
        cls, storage: Storage, size: int, *, cached: bool = True
    ) -> EventTree:
        """Read the tree over the first ``size`` events.

        Args:
            storage: The log.
            size: How many events.
            cached: Whether stored roots of blocks are used.

        Raises:
            CallerError: The log has fewer events.
            StoreError: The log cannot be read.
        """
        head = await storage.store.head()
        if not 0 <= size <= head.position:
            raise CallerError(
                f"#{size}",
                "does not exist yet",
                f"The last event is #{head.position}",
            )
        archived = (await archived_roots(storage))[: size // BLOCK]
        blocks = await _stored(storage, size) if cached else []
        if cached and len(blocks) < len(archived):
            blocks = archived
        tree = cls(storage, size, blocks)
        known = len(blocks)
        while (len(blocks) + 1) * BLOCK <= size:
            try:
                root = rfc9162.root_of(await tree._read_block(len(blocks)))
            except UNREADABLE:
                root = archived[len(blocks)]  # which the log is chained to
            blocks.append(root)
        if cached and len(blocks) > known and not storage.read_only:
            await _store(storage, blocks)
        return tree

    async def root(self, size: int | None = None) -> bytes:
        """Return the root, 32 bytes.

        Args:
            size: How many events it covers; by default, all of the tree.

        Raises:
            CallerError: The tree has fewer events.
        """
        end = self.size if size is None else size
        if not 0 <= end <= self.size:
            raise CallerError(f"#{end}", f"is not among the first {self.size} events")
        await self._load([end])
        return self._subtree(0, end) if end else rfc9162.EMPTY_ROOT

    async def inclusion(self, position: int) -> list[bytes]:
        """Return the path from the event at a position to the root.

        Raises:
            CallerError: The tree has no such event.
        """
        if not 1 <= position <= self.size:
            raise CallerError(
                f"#{position}", f"is not among the first {self.size} events"
            )
        await self._load([position - 1, self.size])
        return rfc9162.inclusion_path(position - 1, self.size, self._subtree)

    async def consistency(self, first: int) -> list[bytes]:
        """Return the proof that this tree extends the tree over ``first`` events.

        Raises:
            CallerError: There is no such tree.
        """
        if not 1 <= first <= self.size:
            raise CallerError(f"#{first}", f"is not among the first {self.size} events")
        await self._load([first, self.size])
        return rfc9162.consistency_path(first, self.size, self._subtree)

    async def _load(self, places: Iterable[int]) -> None:
        """Read the leaves of the blocks that a proof takes apart; drop all others."""
        wanted = {place // BLOCK for place in places}
        if wanted != self._leaves.keys():
            self._within.clear()
        leaves = {at: self._leaves[at] for at in wanted & self._leaves.keys()}
        for block in wanted - leaves.keys():
            if block * BLOCK < self.size:
                leaves[block] = await self._read_block(block)
        self._leaves = leaves

    async def _read_block(self, block: int) -> list[bytes]:
        start = block * BLOCK
        count = min(BLOCK, self.size - start)
        stored = self._storage.store.read_stored(after=start, limit=count)
        leaves = [_leaf(each) async for each in stored]
        if len(leaves) != count:
            raise CorruptLogError(
                f"#{start + 1}", "and later events are missing", "Run: herdbook verify"
            )
        return leaves

    def _subtree(self, start: int, end: int) -> bytes:
        """Return the root over some events; proofs of neighbors share most of them."""
        of_blocks = start % BLOCK == 0 and end % BLOCK == 0
        if of_blocks and end - start == BLOCK:
            return self._blocks[start // BLOCK]
        if end - start == 1:
            return self._leaves[start // BLOCK][start % BLOCK]
        known = self._above if of_blocks else self._within
        if (found := known.get((start, end))) is None:
            middle = start + rfc9162.split(end - start)
            found = rfc9162.node_hash(
                self._subtree(start, middle), self._subtree(middle, end)
            )
            known[start, end] = found
        return found


def _leaf(event: StoredEvent) -> bytes:
    """Return the hash of the leaf of an event.

    Raises:
        CorruptLogError: Its hash is not one.
    """
    try:
        return rfc9162.leaf_hash(bytes.fromhex(event.hash))
    except ValueError as error:
        raise CorruptLogError(
            f"event #{event.position}",
            "has a damaged column (hash)",
            "Run: herdbook verify",
        ) from error


async def archived_roots(storage: Storage) -> list[bytes]:
    """Return the roots of the blocks that are archived."""
    if not isinstance(storage.store, ArchivedStore):
        return []
    archives = await storage.store.archives()
    return [root for each in archives for root in each.block_roots]


async def _stored(storage: Storage, size: int) -> list[bytes]:
    """Return the stored roots of blocks of this log, as far as they are needed."""
    try:
        view = await storage.snapshots.load_view(_CACHE)
    except CorruptLogError:  # a cache that was altered is not used
        return []
    if view is None or view.version != _FORM or view.position != _covered(view.data):
        return []
    stored = storage.store.read_stored(after=view.position - 1, limit=1)
    try:
        if [event.hash async for event in stored] != [view.hash]:  # of another log
            return []
    except UNREADABLE:
        return []
    roots = [view.data[at : at + 32] for at in range(0, len(view.data), 32)]
    return roots[: size // BLOCK]


async def _store(storage: Storage, blocks: list[bytes]) -> None:
    position = len(blocks) * BLOCK
    stored = storage.store.read_stored(after=position - 1, limit=1)
    async for event in stored:
        await storage.snapshots.save_view(
            StoredView(
                name=_CACHE,
                version=_FORM,
                position=position,
                hash=event.hash,
                data=b"".join(blocks),
            )
        )


def _covered(data: bytes) -> int:
    return len(data) // 32 * BLOCK
