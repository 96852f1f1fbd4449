"""Keep the pretend models: manifests, blobs and what of them has been fetched.

Invariant: a blob is kept exactly as long as a manifest names it; a manifest may
outlive its blobs only where a fault took them away.
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
        digest: of the manifest as it is stored here, 64 hexadecimal digits.
        damaged: whether the manifest cannot be read any more.
    """

    name: Name
    manifest: Manifest
    digest: str
    modified: datetime
    damaged: bool = False


class Partial(msgspec.Struct, kw_only=True):
    """What is kept of a blob that was not fetched to its end.

    Attributes:
        sizes: the bytes of each part.
        saved: the bytes of each part that are on disk for good.
        touched: when it was last written.
    """

    sizes: list[int]
    saved: list[int]
    touched: datetime


class Store:
    """The models folder of the pretend server.

    Attributes:
        changed: called after each change, so that it can be kept elsewhere.
        corrupted: digests of blobs whose bytes are not what they should be.
    """

    def __init__(self) -> None:
        self.entries: dict[tuple[str, ...], Entry] = {}
        self.blobs: dict[str, Blob] = {}
        self.partials: dict[str, Partial] = {}
        self.corrupted: set[str] = set()
        self._summaries: dict[str, Contents] = {}
        self.changed: Callable[[], None] = _nothing

    def find(self, name: Name) -> Entry | None:
        """Find a model, whatever the case of its letters."""
        return self.entries.get(name.key)

    def spelled(self, name: Name) -> Name:
        """Give a name the spelling of the names that are here, part by part."""
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
        """Write a manifest; another of that name is replaced, its blobs stay.

        Args:
            name: the name, in any spelling.
            manifest: what it shall be.
            modified: the date of the change.
            digest: of the bytes that are stored, where they are spelled otherwise.
        """
        name = self.spelled(name)
        digest = digest or manifest.digest
        entry = Entry(name=name, manifest=manifest, digest=digest, modified=modified)
        self.entries[name.key] = entry
        self.changed()
        return entry

    def add(self, name: Name, package: Package, modified: datetime) -> Entry:
        """Put a whole model here."""
        self.blobs.update({blob.digest: blob for blob in package.blobs})
        return self.write(name, package.manifest, modified)

    def remove(self, name: Name) -> None:
        """Remove a model and the blobs that only it named."""
        entry = self.entries.pop(name.key)
        self.drop_unused(entry.manifest)
        self.changed()

    def drop_unused(self, former: Manifest) -> int:
        """Drop those blobs of a former manifest that no other names; count them."""
        used = self._used_digests()
        unused = [
            layer.digest for layer in former.all_layers if layer.digest not in used
        ]
        gone = [self.blobs.pop(digest, None) for digest in unused]
        return sum(blob is not None for blob in gone)

    def contents(self, entry: Entry) -> Contents:
        """Read what stands in a model's layers."""
        return unpack(entry.manifest, self.blobs)

    def listed(self) -> list[tuple[Entry, Contents]]:
        """List the models that can be read, the youngest first, with their contents.

        What has been read once is remembered until the server starts again, even if
        its blobs are taken away meanwhile.
        """
        self.summarize()
        readable = [
            (entry, self._summaries[entry.digest])
            for entry in self.entries.values()
            if not entry.damaged and entry.digest in self._summaries
        ]
        return sorted(readable, key=_second, reverse=True)

    def summarize(self, *, anew: bool = False) -> None:
        """Read what can be read and has not been; ``anew`` forgets the rest."""
        if anew:
            self._summaries.clear()
        for entry in self.entries.values():
            if entry.digest not in self._summaries and self._has_weights(entry):
                self._summaries[entry.digest] = self.contents(entry)

    def used_bytes(self) -> int:
        """Tell how much is stored, partial blobs included."""
        whole = sum(blob.size for blob in self.blobs.values())
        return whole + sum(sum(part.saved) for part in self.partials.values())

    def prune(self, before: datetime) -> None:
        """Drop partial blobs untouched since then, as a start of the server does."""
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
    """Tell nobody."""
