"""Pull models: the sequence of lines that a client sees.

Invariant: a model is there only after ``success``; whatever ends a pull before that
leaves no model, and only what was fetched of its layers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

from herdbook.sandbox.clock import Clock, Timer
from herdbook.sandbox.models.artifacts import Blob, Layer, Manifest, Package
from herdbook.sandbox.models.names import Name
from herdbook.sandbox.models.store import Store
from herdbook.sandbox.registry.downloads import Download
from herdbook.sandbox.registry.registry import PullError, Registry
from herdbook.sandbox.request_bodies import Json
from herdbook.sandbox.results import Outbox
from herdbook.sandbox.settings import Profile, Settings

#: Seconds between two lines of progress.
_TICK_S: Final = 0.06


class Downloads:
    """The downloads under way, one per digest, whoever wants them.

    Attributes:
        cancel_lag_s: how long a cancelled download is still in the way of the next.
        disk_bytes: what the store may hold; None for no limit.
    """

    def __init__(self, clock: Clock, store: Store, registry: Registry) -> None:
        self._clock = clock
        self._store = store
        self._registry = registry
        self._by_digest: dict[str, Download] = {}
        self.cancel_lag_s = 0.0
        self.disk_bytes: int | None = None

    def of(self, blob: Blob) -> Download:
        """Give the download of a blob, a new one where there is none.

        Raises:
            PullError: while a cancelled one is still dying.
        """
        download = self._by_digest.get(blob.digest)
        if download is None:
            download = Download(
                blob, self._store, self._registry, self._clock, self._room(blob)
            )
            self._by_digest[blob.digest] = download
        elif download.ended:
            raise PullError("context canceled")
        return download

    def forget(self, download: Download, *, cancelled: bool = False) -> None:
        """Take an ended download from the list, at once or when it has died."""
        digest = download.blob.digest
        if cancelled and self.cancel_lag_s:
            self._clock.call_later(
                self.cancel_lag_s, lambda: self._drop(digest, download)
            )
        else:
            self._drop(digest, download)

    def die(self, *, keep: bool) -> None:
        """End with the server; a kill loses what open connections have brought."""
        for download in self._by_digest.values():
            if not download.ended:
                download.die(keep=keep)
        self._by_digest.clear()

    def _drop(self, digest: str, download: Download) -> None:
        if self._by_digest.get(digest) is download:
            del self._by_digest[digest]

    def _room(self, blob: Blob) -> int:
        """Return how large a blob may become before the disk is full."""
        if self.disk_bytes is None:
            return blob.size
        own = self._store.partials.get(blob.digest)
        others = self._store.used_bytes() - (sum(own.saved) if own else 0)
        return self.disk_bytes - others


class Pull:
    """One pull; its lines come from ``lines``, and ``cancel`` ends it."""

    def __init__(
        self,
        name: Name,
        *,
        clock: Clock,
        store: Store,
        downloads: Downloads,
        settings: Settings,
        profile: Profile,
    ) -> None:
        self.lines = Outbox()
        self._name = name
        self._clock = clock
        self._store = store
        self._downloads = downloads
        self._settings = settings
        self._profile = profile
        self._package: Package | None = None
        self._left: list[Layer] = []
        self._fetched: list[Layer] = []
        self._download: Download | None = None
        self._timer: Timer | None = None
        self._dwelling: Timer | None = None

    def begin(self, fetch: Callable[[], Package], latency_s: float) -> None:
        """Ask the registry for the manifest, then for the layers."""
        self.lines.put({"status": "pulling manifest"})
        self._later(latency_s, lambda: self._with_manifest(fetch))

    def cancel(self) -> None:
        """Stop, because nobody listens any more; what was fetched stays.

        No line says so: a stream that is broken does not end.
        """
        self._stop_timer()
        if self._dwelling is not None:
            self._dwelling.cancel()
        if self._download is not None:
            download, self._download = self._download, None
            if download.leave(self._layer_ended):
                self._downloads.forget(download, cancelled=True)

    def _with_manifest(self, fetch: Callable[[], Package]) -> None:
        try:
            self._package = fetch()
        except PullError as error:
            self._fail(error.text)
            return
        self._left = list(self._package.manifest.all_layers)
        self._next_layer()

    def _next_layer(self) -> None:
        while self._left:
            layer = self._left.pop(0)
            if layer.digest not in self._store.blobs:
                self._fetch(layer)
                return
            self.lines.put(_progress(layer, layer.size))
        self._verify()

    def _fetch(self, layer: Layer) -> None:
        assert self._package is not None
        blob = next(one for one in self._package.blobs if one.digest == layer.digest)
        try:
            self._download = self._downloads.of(blob)
        except PullError as error:
            self._fail(error.text)
            return
        self._fetched.append(layer)
        self._tick_later(layer)
        self._download.join(self._layer_ended)

    def _tick_later(self, layer: Layer) -> None:
        self._later(_TICK_S, lambda: self._tick(layer), soft=True)

    def _tick(self, layer: Layer) -> None:
        if self._download is not None:
            self.lines.when_read(lambda: self._tick_later(layer))
            self.lines.put(_progress(layer, self._download.completed()))

    def _layer_ended(self, failure: str) -> None:
        assert self._download is not None
        self._downloads.forget(self._download)
        if failure:
            self._leave_layer()
            self._fail(failure)
        elif self._profile.layer_lag_s:
            self._dwelling = self._clock.call_later(
                self._profile.layer_lag_s, self._advance
            )
        else:
            self._advance()

    def _advance(self) -> None:
        self._leave_layer()
        self._next_layer()

    def _leave_layer(self) -> None:
        self._download = self._dwelling = None
        self._stop_timer()
        self.lines.forget_reader()

    def _verify(self) -> None:
        self.lines.put({"status": "verifying sha256 digest"})
        takes = sum(layer.size for layer in self._fetched) / self._settings.verify_rate
        self._later(takes, self._verified)

    def _verified(self) -> None:
        wrong = [
            one.digest for one in self._fetched if one.digest in self._store.corrupted
        ]
        if wrong:
            self._store.corrupted.discard(wrong[0])
            self._store.blobs.pop(wrong[0], None)
            again = "digest mismatch, file must be downloaded again"
            got = f"sha256:{wrong[0][:6:-1]}"
            self._fail(f"{again}: want {wrong[0]}, got {got}")
        else:
            self._write()

    def _write(self) -> None:
        assert self._package is not None
        former = self._store.find(self._name)
        self.lines.put({"status": "writing manifest"})
        modified = self._clock.wall(self._clock.now())
        manifest = self._package.manifest
        digest = _respelled(manifest.digest) if self._profile.respells_manifests else ""
        self._store.write(self._name, manifest, modified, digest)
        if former is not None and self._drop_former(former.manifest):
            self.lines.put({"status": "removing unused layers"})
        self.lines.put({"status": "success"})
        self.lines.close()

    def _drop_former(self, former: Manifest) -> int:
        return self._store.drop_unused(former) if self._settings.prune else 0

    def _fail(self, text: str) -> None:
        self.lines.put({"error": text})
        self.lines.close()

    def _later(
        self, delay: float, call: Callable[[], None], *, soft: bool = False
    ) -> None:
        self._timer = self._clock.call_later(delay, call, soft=soft)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def _respelled(digest: str) -> str:
    return hashlib.sha256(f"respelled {digest}".encode()).hexdigest()


def _progress(layer: Layer, completed: int) -> Json:
    """Compose a line; ``completed`` is left out while it is zero."""
    hexadecimal = layer.digest.removeprefix("sha256:")
    line: Json = {
        "status": f"pulling {hexadecimal[:12]}",
        "digest": layer.digest,
        "total": layer.size,
    }
    return line | ({"completed": completed} if completed else {})
