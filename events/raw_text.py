"""Text of a log that is not UTF-8: read as bytes, so that one row costs only itself."""

from __future__ import annotations


def text_or_bytes(raw: bytes) -> str | bytes:
    """Return a text of SQLite's; its bytes if they are not UTF-8.

    It is the text factory of every connection. Without it, one such text fails the
    whole page, and the statement that failed keeps its read transaction open.
    """
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def shown(value: object) -> str:
    r"""Return a column as text; bytes that are not UTF-8 are shown as ``\xff``."""
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    return str(value)
