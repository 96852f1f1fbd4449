"""Read compressed answers as they stream by, without ever holding much of one."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

_PIECE: Final = 65_536
"""Bytes that are decompressed at once, however well they were compressed."""

_GZIP_OR_ZLIB: Final = 32 + zlib.MAX_WBITS
"""Window bits that let zlib detect which of the two formats it reads."""

_READABLE: Final = frozenset({b"gzip", b"x-gzip", b"deflate"})


class Decoder:
    """Decompresses the pieces of a body.

    Args:
        coding: The value of ``Content-Encoding``. Of a coding that Python cannot read,
            every piece is empty.
    """

    def __init__(self, coding: bytes) -> None:
        known = coding.strip().lower() in _READABLE
        self._inflater = zlib.decompressobj(_GZIP_OR_ZLIB) if known else None

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Yield what the next bytes of the body contain."""
        while data and self._inflater is not None:
            try:
                piece = self._inflater.decompress(data, _PIECE)
            except zlib.error:  # the client reports that
                self._inflater = None
                return
            data = self._inflater.unconsumed_tail
            yield piece
