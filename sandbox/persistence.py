"""Persist the simulated store in a folder, for the next run.

Invariant: the file is written completely or not at all. It holds what a real disk
would hold: of a download in progress, only the parts that were saved.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from herdbook.sandbox.models.artifacts import Blob
from herdbook.sandbox.models.store import Entry, Partial
from herdbook.sandbox.world import World


class _StoreFile(msgspec.Struct, frozen=True, kw_only=True):
    entries: list[Entry]
    blobs: list[Blob]
    partials: dict[str, Partial]


def persist(folder: Path, world: World) -> None:
    """Read the store from a folder if it is there, and save every change to it.

    Args:
        folder: Folder for one small JSON file; created if missing.
        world: The world with the store. Old partial blobs are dropped, as at every
            start of the server.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "store.json"
    store = world.store
    if file.exists():
        saved = msgspec.json.decode(file.read_bytes(), type=_StoreFile)
        store.entries = {entry.name.key: entry for entry in saved.entries}
        store.blobs = {blob.digest: blob for blob in saved.blobs}
        store.partials = saved.partials
        world.drop_old_partials()

    def save() -> None:
        content = _StoreFile(
            entries=list(store.entries.values()),
            blobs=list(store.blobs.values()),
            partials=store.partials,
        )
        fresh = folder / "store.json.new"
        fresh.write_bytes(msgspec.json.encode(content))
        fresh.replace(file)

    store.changed = save
    save()
