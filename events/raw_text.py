"""Read text that is not UTF-8 as bytes, so that one bad row affects only itself."""

from __future__ import annotations


def text_or_bytes(raw: bytes) -> str | bytes:
    """Decode text of SQLite; return the bytes if they are not UTF-8.

    Every connection uses this text factory. Without it, one such text fails the
    whole page, and the failed statement keeps its read transaction open.
    """
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def column_text(value: object) -> str:
    r"""Return a column as text; invalid UTF-8 becomes ``\xff``."""
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    return str(value)
