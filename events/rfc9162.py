"""Merkle tree hashes, inclusion proofs and consistency proofs, as in RFC 9162.

The tree is the one of Certificate Transparency (RFC 9162, section 2.1) with SHA-256: a
leaf is hashed with the prefix 0x00, an inner node with 0x01. All functions are pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256

Subtree = Callable[[int, int], bytes]
"""Returns the hash of the leaves from ``start`` to ``end`` (exclusive)."""

EMPTY_ROOT = sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf: with the prefix 0, so that no inner node equals it."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node, with the prefix 1."""
    return sha256(b"\x01" + left + right).digest()


def root_of(leaves: Sequence[bytes]) -> bytes:
    """Return the root over hashes of leaves, or of complete subtrees of one size."""
    if not leaves:
        return EMPTY_ROOT
    level = list(leaves)
    while len(level) > 1:
        paired = [
            node_hash(level[at], level[at + 1]) for at in range(0, len(level) - 1, 2)
        ]
        level = [*paired, level[-1]] if len(level) % 2 else paired
    return level[0]


def split(size: int) -> int:
    """Return the largest power of two below a size of at least 2."""
    return 1 << ((size - 1).bit_length() - 1)


def inclusion_path(index: int, size: int, subtree: Subtree) -> list[bytes]:
    """Return the path from a leaf to the root of a tree.

    Args:
        index: The leaf, from 0.
        size: The number of leaves.
        subtree: Returns hashes of subtrees.
    """
    return _path(index, 0, size, subtree)


def _path(index: int, start: int, end: int, subtree: Subtree) -> list[bytes]:
    if end - start == 1:
        return []
    middle = start + split(end - start)
    if start + index < middle:
        return [*_path(index, start, middle, subtree), subtree(middle, end)]
    rest = _path(start + index - middle, middle, end, subtree)
    return [*rest, subtree(start, middle)]


def consistency_path(first: int, second: int, subtree: Subtree) -> list[bytes]:
    """Return the proof that a tree extends another one.

    Args:
        first: The size of the smaller tree, at least 1.
        second: The size of the larger tree.
        subtree: Returns hashes of subtrees.
    """
    return _consistency(first, 0, second, subtree, whole=True)


def _consistency(
    first: int, start: int, end: int, subtree: Subtree, *, whole: bool
) -> list[bytes]:
    if first == end - start:
        return [] if whole else [subtree(start, end)]
    half = split(end - start)
    middle = start + half
    if first <= half:
        rest = _consistency(first, start, middle, subtree, whole=whole)
        return [*rest, subtree(middle, end)]
    rest = _consistency(first - half, middle, end, subtree, whole=False)
    return [*rest, subtree(start, middle)]


def root_from_inclusion(
    leaf: bytes, index: int, size: int, path: Sequence[bytes]
) -> bytes | None:
    """Return the root that an inclusion proof leads to (RFC 9162, section 2.1.3.2).

    None if the proof has the wrong length.
    """
    if not 0 <= index < size:
        return None
    position, last, hash_ = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            return None
        if position & 1 or position == last:
            hash_ = node_hash(sibling, hash_)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            hash_ = node_hash(hash_, sibling)
        position, last = position >> 1, last >> 1
    return hash_ if last == 0 else None


def is_consistent(
    first: int, second: int, roots: tuple[bytes, bytes], path: Sequence[bytes]
) -> bool:
    """Check a consistency proof (RFC 9162, section 2.1.4.2).

    Args:
        first: The size of the smaller tree, at least 1.
        second: The size of the larger tree.
        roots: The roots of both.
        path: The proof.
    """
    if not 1 <= first <= second:
        return False
    if first == second:
        return not path and roots[0] == roots[1]
    steps = list(path)
    if first & (first - 1) == 0:
        steps.insert(0, roots[0])
    if not steps:
        return False
    position, last = first - 1, second - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    old = new = steps[0]
    for sibling in steps[1:]:
        if last == 0:
            return False
        if position & 1 or position == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and (old, new) == roots
