"""The Merkle tree of RFC 9162, against its definition."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herdbook.events import rfc9162

#: Test vectors of Certificate Transparency: the leaves, and the root over the first n.
LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = {
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}


def defined(leaves: Sequence[bytes]) -> bytes:
    """Return the tree hash as RFC 9162, section 2.1.1, defines it."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return sha256(b"\x01" + defined(leaves[:half]) + defined(leaves[half:])).digest()


def data(size: int) -> list[bytes]:
    return [number.to_bytes(4) for number in range(size)]


@pytest.mark.parametrize("size", ROOTS)
def test_roots_are_those_of_the_test_vectors(size: int) -> None:
    root = rfc9162.root_of([rfc9162.leaf_hash(leaf) for leaf in LEAVES[:size]])

    assert root.hex() == ROOTS[size]


@given(st.integers(0, 70))
def test_root_equals_the_recursive_definition(size: int) -> None:
    leaves = data(size)

    root = rfc9162.root_of([rfc9162.leaf_hash(leaf) for leaf in leaves])

    assert root == defined(leaves)


@given(st.integers(1, 70), st.data())
def test_exactly_the_leaves_can_be_proved(size: int, draw: st.DataObject) -> None:
    index = draw.draw(st.integers(0, size - 1))
    leaves = data(size)
    path = rfc9162.inclusion_path(index, size, lambda a, b: defined(leaves[a:b]))

    def leads_to(leaf: bytes, at: int) -> bytes | None:
        return rfc9162.root_from_inclusion(rfc9162.leaf_hash(leaf), at, size, path)

    assert leads_to(leaves[index], index) == defined(leaves)
    assert leads_to(b"another", index) != defined(leaves)
    for other in range(size):
        if other != index:
            assert leads_to(leaves[index], other) != defined(leaves)


@given(st.integers(1, 70), st.data())
def test_a_longer_tree_is_consistent_and_another_is_not(
    second: int, draw: st.DataObject
) -> None:
    first = draw.draw(st.integers(1, second))
    leaves = data(second)
    path = rfc9162.consistency_path(first, second, lambda a, b: defined(leaves[a:b]))
    roots = defined(leaves[:first]), defined(leaves)
    changed = [b"another", *leaves[1:]]

    assert rfc9162.is_consistent(first, second, roots, path)
    for wrong in (
        (defined(changed[:first]), roots[1]),
        (roots[0], defined(changed)),
    ):
        assert not rfc9162.is_consistent(first, second, wrong, path)
    if first != second:
        assert not rfc9162.is_consistent(first, second, roots, path[:-1])
        assert not rfc9162.is_consistent(first, second, roots, [*path, bytes(32)])
