"""Proofs about a log: anchors, signatures, and a Merkle tree over its events."""

from __future__ import annotations
