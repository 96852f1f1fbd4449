"""The store of simulated models: manifests, blobs and partial downloads.

Invariant: a blob exists as long as a manifest names it. Only a fault can delete
blobs that a manifest still names.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import msgspec

from herdbook.sandbox.models.artifacts import (
    Blob,
    Contents,
    Kind,
    Manifest,
    Package,
    unpack,
)
from herdbook.sandbox.models.names import Name


class Entry(msgspec.Struct, kw_only=True):
    """A model of the store.

    Attributes:
        digest: Digest of the stored manifest, 64 hexadecimal digits.
        damaged: Whether the manifest is unreadable.
    """

    name: Name
    manifest: Manifest
    digest: str
    modified: datetime
    damaged: bool = False


class Partial(msgspec.Struct, kw_only=True):
    """A blob that is not completely downloaded.

    Attributes:
        sizes: Bytes of each part.
        saved: Bytes of each part that are saved on disk.
        touched: Time of the last write.
    """

    sizes: list[int]
    saved: list[int]
    touched: datetime


class Store:
    """The models folder of the simulated server.

    Attributes:
        changed: Called after each change, to persist it.
        corrupted: Digests of blobs with wrong bytes.
    """

    def __init__(self) -> None:
        self.entries: dict[tuple[str, ...], Entry] = {}
        self.blobs: dict[str, Blob] = {}
        self.partials: dict[str, Partial] = {}
        self.corrupted: set[str] = set()
        self._summaries: dict[str, Contents] = {}
        self.changed: Callable[[], None] = _nothing

    def find(self, name: Name) -> Entry | None:
        """Find a model; names are case-insensitive."""
        return self.entries.get(name.key)

    def spelled(self, name: Name) -> Name:
        """Return a name in the spelling of the stored names, part by part."""
        parts = {}
        for part in ("host", "namespace", "model", "tag"):
            given = getattr(name, part)
            known = (getattr(entry.name, part) for entry in self.entries.values())
            alike = (text for text in known if text.lower() == given.lower())
            parts[part] = next(alike, given)
        return Name(**parts)

    def write(
        self, name: Name, manifest: Manifest, modified: datetime, digest: str = ""
    ) -> Entry:
        """Write a manifest. It replaces one of the same name; the blobs of that stay.

        Args:
            name: The name, in any spelling.
            manifest: The manifest.
            modified: Date of the change.
            digest: Digest of the stored bytes, if their spelling differs.
        """
        name = self.spelled(name)
        digest = digest or manifest.digest
        entry = Entry(name=name, manifest=manifest, digest=digest, modified=modified)
        self.entries[name.key] = entry
        self.changed()
        return entry

    def add(self, name: Name, package: Package, modified: datetime) -> Entry:
        """Add a complete model."""
        self.blobs.update({blob.digest: blob for blob in package.blobs})
        return self.write(name, package.manifest, modified)

    def remove(self, name: Name) -> None:
        """Remove a model and the blobs that only it named."""
        entry = self.entries.pop(name.key)
        self.drop_unused(entry.manifest)
        self.changed()

    def drop_unused(self, former: Manifest) -> int:
        """Delete the blobs that only a former manifest names; return their number."""
        used = self._used_digests()
        unused = [
            layer.digest for layer in former.all_layers if layer.digest not in used
        ]
        gone = [self.blobs.pop(digest, None) for digest in unused]
        return sum(blob is not None for blob in gone)

    def contents(self, entry: Entry) -> Contents:
        """Read the contents of a model's layers."""
        return unpack(entry.manifest, self.blobs)

    def listed(self) -> list[tuple[Entry, Contents]]:
        """List the readable models with their contents, newest first.

        Contents that were read once are cached until the server restarts, even if
        the blobs are deleted meanwhile.
        """
        self.summarize()
        readable = [
            (entry, self._summaries[entry.digest])
            for entry in self.entries.values()
            if not entry.damaged and entry.digest in self._summaries
        ]
        return sorted(readable, key=_second, reverse=True)

    def summarize(self, *, reread: bool = False) -> None:
        """Cache the contents of readable models; ``reread`` empties the cache first."""
        if reread:
            self._summaries.clear()
        for entry in self.entries.values():
            if entry.digest not in self._summaries and self._has_weights(entry):
                self._summaries[entry.digest] = self.contents(entry)

    def used_bytes(self) -> int:
        """Return the bytes stored, including partial blobs."""
        whole = sum(blob.size for blob in self.blobs.values())
        return whole + sum(sum(part.saved) for part in self.partials.values())

    def prune(self, before: datetime) -> None:
        """Delete partial blobs not written since then, as the server's start does."""
        kept = {k: v for k, v in self.partials.items() if v.touched >= before}
        self.partials = kept
        self.changed()

    def _used_digests(self) -> set[str]:
        return {
            layer.digest
            for entry in self.entries.values()
            for layer in entry.manifest.all_layers
        }

    def _has_weights(self, entry: Entry) -> bool:
        return all(
            layer.digest in self.blobs
            for layer in entry.manifest.layers
            if layer.kind is Kind.WEIGHTS
        )


def _second(listed: tuple[Entry, Contents]) -> int:
    return int(listed[0].modified.timestamp())


def _nothing() -> None:
    """Do nothing."""
