"""Files of anchors: text that grows by one anchor at a time."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from io import FileIO
from pathlib import Path

from herdbook.core.errors.files import read_remedy
from herdbook.core.proof.anchor import Anchor, parse_anchors
from herdbook.events.errors import CallerError


def append_anchor(file: Path, anchor: Anchor) -> None:
    """Append an anchor to a file, durably; create the file if it does not exist.

    Raises:
        CallerError: The file cannot be written. It has no part of the anchor then.
    """
    try:
        _append(file, f"{anchor.text()}\n".encode())
    except OSError as error:
        raise CallerError(
            str(file),
            f"cannot be written: {error.strerror or error}",
            "Choose a path with free space that you can write to",
        ) from error


def _append(file: Path, data: bytes) -> None:
    """Append data to a file, all or nothing: a part would make the file unreadable."""
    with file.open("ab", buffering=0) as target:
        size = target.tell()
        try:
            written = target.write(data)
            if written == len(data):
                os.fsync(target.fileno())
                return
        except OSError:
            _cut(target, size)
            raise
        _cut(target, size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _cut(file: FileIO, size: int) -> None:
    with suppress(OSError):
        file.truncate(size)


def read_anchor_file(file: Path) -> list[Anchor]:
    """Return the anchors of a file.

    Raises:
        CallerError: The file cannot be read, or a part of it is not an anchor.
    """
    try:
        text = file.read_text("utf-8")
    except OSError as error:
        reason = error.strerror or str(error)
        raise CallerError(
            str(file), f"cannot be read: {reason}", read_remedy(error)
        ) from error
    except UnicodeError as error:
        raise CallerError(
            str(file),
            "is not a text file with anchors",
            "Use a file that herdbook anchor wrote",
        ) from error
    return parse_anchors(text, source=str(file))
