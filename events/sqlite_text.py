"""Text of a log that is not UTF-8: read as bytes, so that one row costs only itself."""

from __future__ import annotations

import sqlite3


def text_or_bytes(raw: bytes) -> str | bytes:
    """Return a text of SQLite's; its bytes if they are not UTF-8."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def is_not_utf_8(error: Exception) -> bool:
    """Return whether SQLite's module failed because a text is not UTF-8.

    That is Python's own error: SQLite does not check text, so it has no result code.
    """
    if isinstance(error, UnicodeDecodeError):
        return True
    return (
        isinstance(error, sqlite3.OperationalError)
        and getattr(error, "sqlite_errorcode", None) is None
    )


def shown(value: object) -> str:
    r"""Return a column as text; bytes that are not UTF-8 are shown as ``\xff``."""
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    return str(value)
