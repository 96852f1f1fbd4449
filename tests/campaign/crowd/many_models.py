"""Hundreds of models for a sandbox, some of which share weights."""

from __future__ import annotations

import hashlib
from datetime import timedelta

import msgspec

from herdbook.sandbox import World
from herdbook.sandbox.models.artifacts import Contents, Package, config_of, pack, unpack
from herdbook.sandbox.models.catalogue import read_catalogue
from herdbook.sandbox.models.names import DEFAULT_HOST, Name

SHARING = 3
"""Number of models that share the same weights, among the first models."""

SHARED = 10
"""Number of shared weights."""

SIZE = 50_000_000
"""Approximate size of the weights of each model, bytes."""


def fill(world: World, count: int) -> list[str]:
    """Add models to a server and offer them for pulls.

    Returns:
        Their names; those that share weights come first.
    """
    made = {f"crowd{number:03}:latest": _package(number) for number in range(count)}
    world.registry.offer(DEFAULT_HOST, made)
    for text, package in made.items():
        name = Name.parse(text)
        assert name is not None
        world.store.add(name, package, world.clock.wall(0.0) - timedelta(days=1))
    return list(made)


def _package(number: int) -> Package:
    plain = read_catalogue().herd["plain:latest"]
    like = unpack(plain.manifest, {blob.digest: blob for blob in plain.blobs})
    assert like.weights is not None
    shares = number < SHARED * SHARING
    group = number // SHARING if shares else number
    weights = msgspec.structs.replace(
        like.weights,
        digest=f"sha256:{hashlib.sha256(f'crowd {group}'.encode()).hexdigest()}",
        size=SIZE + group,
    )
    return pack(
        Contents(
            config=config_of(weights),
            weights=weights,
            template=like.template,
            system=f"You are number {number}.",
        )
    )
