"""Keep the pretend store in a folder, so that a killed server finds it again.

Invariant: what is written is whole or not there at all; it holds what a real disk
would hold, so the parts of a download under way count only as far as they were
saved.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import msgspec

from herdbook.sandbox.models.artifacts import Blob
from herdbook.sandbox.models.store import Entry, Partial
from herdbook.sandbox.world import World


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    entries: list[Entry]
    blobs: list[Blob]
    partials: dict[str, Partial]


def keep_in(folder: Path, world: World) -> None:
    """Read the store from a folder, where it was kept, and keep it there from now on.

    Args:
        folder: made where it is missing; it holds one small file of JSON.
        world: whose store it is; partial blobs older than an hour are dropped, as
            at every start of the server.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "store.json"
    store = world.store
    if file.exists():
        kept = msgspec.json.decode(file.read_bytes(), type=_Kept)
        store.entries = {entry.name.key: entry for entry in kept.entries}
        store.blobs = {blob.digest: blob for blob in kept.blobs}
        store.partials = kept.partials
        store.prune(world.clock.wall(world.clock.now()) - timedelta(hours=1))

    def keep() -> None:
        whole = _Kept(
            entries=list(store.entries.values()),
            blobs=list(store.blobs.values()),
            partials=store.partials,
        )
        fresh = folder / "store.json.new"
        fresh.write_bytes(msgspec.json.encode(whole))
        fresh.replace(file)

    store.changed = keep
    keep()
