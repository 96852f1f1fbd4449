"""The stylesheet, the script and the icon: read once, and never stale in a browser.

A link to a file contains a part of the hash of its content, so a cached file is never
another version.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec
from litestar import Response, get
from litestar.params import FromPath, FromQuery

from herdbook.service.errors import BadPathError

_FOLDER: Final = Path(__file__).parent / "static"
_TYPES: Final = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_IMMUTABLE: Final = "public, max-age=31536000, immutable"


class StaticFile(msgspec.Struct, frozen=True, kw_only=True):
    """A static file.

    Attributes:
        content: Its bytes.
        kind: Its media type.
        version: A part of the hash of its content.
    """

    content: bytes
    kind: str
    version: str


def _read(path: Path) -> StaticFile:
    content = path.read_bytes()
    return StaticFile(
        content=content,
        kind=_TYPES[path.suffix],
        version=sha256(content).hexdigest()[:12],
    )


FILES: Final[Mapping[str, StaticFile]] = {
    path.name: _read(path)
    for path in sorted(_FOLDER.iterdir())
    if path.suffix in _TYPES
}
"""The files, by name."""


def static_link(name: str) -> str:
    """Return the link to a file, with its version."""
    return f"/static/{name}?v={FILES[name].version}"


@get("/static/{name:str}", include_in_schema=False, sync_to_thread=False)
def static_file(name: FromPath[str], v: FromQuery[str] = "") -> Response[bytes]:
    """Serve a file; a link with the current hash may be cached permanently.

    Raises:
        BadPathError: The file does not exist.
    """
    found = FILES.get(name)
    if found is None:
        raise BadPathError(f"/static/{name}")
    kept = _IMMUTABLE if v == found.version else "no-cache"
    return Response(
        found.content, media_type=found.kind, headers={"cache-control": kept}
    )
