"""Make anchors and proofs of a log, and check them."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from datetime import UTC

import msgspec

from herdbook.core.clock import Clock
from herdbook.core.log.storage import Storage
from herdbook.core.proof.anchor import ORIGIN, Anchor
from herdbook.core.proof.keys import PublicKey
from herdbook.core.proof.merkle_tree import EventTree
from herdbook.events import rfc9162
from herdbook.events.archive_file import UNREADABLE
from herdbook.events.errors import CallerError, CorruptLogError
from herdbook.events.findings import Finding, Kind
from herdbook.events.recorded import (
    GENESIS,
    StoredEvent,
    canonical_bytes,
    chained_hash,
)
from herdbook.events.store import ArchivedStore

FORMAT = "herdbook-proof/1"


class Inclusion(msgspec.Struct, frozen=True, kw_only=True):
    """The proof that an event is in a log with a given anchor.

    Attributes:
        format: The format of this proof.
        position: The position of the event.
        previous: The hash of the event before it.
        canonical: The bytes of the event that are hashed, as text.
        path: The path to the root, each hash as 64 hexadecimal digits.
        anchor: The text of the anchor.
    """

    format: str = FORMAT
    position: int
    previous: str
    canonical: str
    path: tuple[str, ...]
    anchor: str


class Consistency(msgspec.Struct, frozen=True, kw_only=True):
    """The proof that the log of one anchor extends the log of another.

    Attributes:
        format: The format of this proof.
        path: The proof, each hash as 64 hexadecimal digits.
        first: The text of the earlier anchor.
        second: The text of the later anchor.
    """

    format: str = "herdbook-consistency/1"
    path: tuple[str, ...]
    first: str
    second: str


async def make_anchor(
    storage: Storage, clock: Clock, *, position: int | None = None
) -> Anchor:
    """Return the anchor of a log as it is now, or as it was at a position.

    Raises:
        CallerError: The log has no events, or not that position.
        StoreError: It cannot be read.
    """
    head = await storage.store.head()
    if not head.position:
        raise _empty()
    end = head.position if position is None else position
    tree = await EventTree.read(storage, end)
    last, _ = await _event(storage, end)
    return Anchor(
        origin=await _origin(storage),
        position=end,
        root=await tree.root(),
        hash=last.hash,
        time=clock.now().astimezone(UTC).replace(microsecond=0),
    )


async def prove(storage: Storage, position: int, anchor: Anchor) -> Inclusion:
    """Return the proof that an event is in the log of an anchor.

    Raises:
        CallerError: The anchor is of another log, or does not cover the event.
        CorruptLogError: The log does not have what was anchored.
        StoreError: The log cannot be read.
    """
    head = await storage.store.head()
    if not 1 <= position <= head.position:
        raise CallerError(
            f"#{position}", "does not exist", f"The last event is #{head.position}"
        )
    if position > anchor.position:
        raise CallerError(
            f"#{position}",
            f"is later than the anchor, which ends at #{anchor.position}",
            "Make a newer anchor: herdbook anchor",
        )
    tree = await _tree_of(storage, anchor)
    path = await tree.inclusion(position)
    event, previous = await _event(storage, position)
    return Inclusion(
        position=position,
        previous=previous,
        canonical=canonical_bytes(event).decode(),
        path=tuple(each.hex() for each in path),
        anchor=anchor.text(),
    )


async def prove_consistency(
    storage: Storage, first: Anchor, second: Anchor
) -> Consistency:
    """Return the proof that the log of the second anchor extends that of the first.

    Raises:
        CallerError: An anchor is of another log, or the second one is earlier.
        CorruptLogError: The log does not have what was anchored.
        StoreError: The log cannot be read.
    """
    if first.origin == second.origin and first.position > second.position:
        raise CallerError(
            "the first anchor",
            f"ends at #{first.position}, after the second one, #{second.position}",
            "Put the earlier anchor first",
        )
    await _tree_of(storage, first)
    tree = await _tree_of(storage, second)
    path = await tree.consistency(first.position)
    return Consistency(
        path=tuple(each.hex() for each in path),
        first=first.text(),
        second=second.text(),
    )


def is_included(proof: Inclusion, anchor: Anchor) -> bool:
    """Return whether a proof shows that its event is in the log of an anchor."""
    hash_ = chained_hash(proof.previous, proof.canonical.encode())
    leaf = rfc9162.leaf_hash(bytes.fromhex(hash_))
    path = _hashes(proof.path)
    if path is None:
        return False
    root = rfc9162.root_from_inclusion(leaf, proof.position - 1, anchor.position, path)
    return root == anchor.root


def is_extended(proof: Consistency, first: Anchor, second: Anchor) -> bool:
    """Return whether a proof shows that the second anchor extends the first."""
    path = _hashes(proof.path)
    roots = first.root, second.root
    return path is not None and rfc9162.is_consistent(
        first.position, second.position, roots, path
    )


def _hashes(path: Collection[str]) -> list[bytes] | None:
    """Return the hashes of a path; None if one is not written as a proof writes it."""
    try:
        found = [bytes.fromhex(each) for each in path]
    except ValueError:
        return None
    return found if [each.hex() for each in found] == list(path) else None


async def check_anchors(
    storage: Storage, anchors: Collection[Anchor], keys: Collection[PublicKey] = ()
) -> list[Finding]:
    """Compare a log with anchors that were made of it before.

    Args:
        storage: The log.
        anchors: The anchors.
        keys: If there are any, each anchor must be signed by one of them.

    Raises:
        StoreError: The log cannot be read.
    """
    if not anchors:
        return []
    found: list[Finding] = []
    try:
        head = await storage.store.head()
        origin = await _origin(storage) if head.position else ""
        inside = [each.position for each in anchors if each.position <= head.position]
        # One tree for all anchors; nothing cached is believed.
        tree = await EventTree.read(storage, max(inside, default=0), cached=False)
    except CorruptLogError as error:  # verify reports what is damaged
        reason = f"cannot be checked: {error.subject} {error.state}"
        return [_finding(anchor, reason) for anchor in anchors]
    for anchor in anchors:
        if keys and not any(key.has_signed(anchor) for key in keys):
            found.append(_finding(anchor, "is not signed by any of the given keys"))
        if anchor.position > head.position:
            end = f"is after the end of the log, #{head.position}"
            found.append(_finding(anchor, end))
        elif anchor.origin != origin:
            found.append(_finding(anchor, f"is from another log, {anchor.origin}"))
        elif problem := await _difference(storage, tree, anchor):
            found.append(_finding(anchor, problem))
    return found


def _finding(anchor: Anchor, problem: str) -> Finding:
    return Finding(
        position=anchor.position,
        kind=Kind.ANCHOR,
        message=f"the anchor of {anchor.time:%Y-%m-%d %H:%M:%S} UTC {problem}",
    )


async def _difference(storage: Storage, tree: EventTree, anchor: Anchor) -> str:
    """Describe how the log differs from what was anchored; empty if it does not."""
    try:
        hash_ = await _hash_at(storage, anchor.position)
        if (hash_, await tree.root(anchor.position)) == (anchor.hash, anchor.root):
            return ""
    except (*UNREADABLE, CorruptLogError) as error:
        return f"cannot be checked: {error.subject} {error.state}"
    return "does not match the log: an event at or before its position was changed"


async def _hash_at(storage: Storage, position: int) -> str:
    if isinstance(storage.store, ArchivedStore):
        for archive in await storage.store.archives():
            if archive.last == position:  # the archive itself is not needed
                return archive.hash
    return (await _event(storage, position))[0].hash


async def _tree_of(storage: Storage, anchor: Anchor) -> EventTree:
    if anchor.origin != await _origin(storage):
        raise CallerError(
            "the anchor",
            f"is from another log, {anchor.origin}",
            "Choose that log with --db",
        )
    tree = await EventTree.read(storage, anchor.position)
    if await tree.root() != anchor.root:
        raise CorruptLogError(
            "the log",
            f"does not match the anchor at #{anchor.position}",
            "An event at or before that position was changed. Run: herdbook verify",
        )
    return tree


async def first_id(storage: Storage) -> str | None:
    """Return the id of the first event of a log, whose archive may be missing.

    Raises:
        StoreError: The log cannot be read.
    """
    if isinstance(storage.store, ArchivedStore):
        for archive in await storage.store.archives():
            return archive.origin
    with suppress(CorruptLogError):
        async for event in storage.store.read_stored(limit=1):
            return event.event_id
        return None
    async for readable in storage.store.read_all(limit=1):  # another column is damaged
        return readable.event_id
    return None


async def _origin(storage: Storage) -> str:
    found = await first_id(storage)
    if found is None:
        raise _empty()
    return f"{ORIGIN}{found}"


def _empty() -> CallerError:
    return CallerError("the log", "has no events yet", "Refresh from the server first")


async def _event(storage: Storage, position: int) -> tuple[StoredEvent, str]:
    """Return an event, and the hash of the event before it."""
    previous = GENESIS
    start = max(position - 2, 0)
    if isinstance(storage.store, ArchivedStore):
        for archive in await storage.store.archives():
            if archive.last == position - 1:
                previous, start = archive.hash, archive.last
    async for event in storage.store.read_stored(after=start, limit=2):
        if event.position == position:
            return event, previous
        previous = event.hash
    raise CallerError(f"#{position}", "does not exist", "See: herdbook log")
