"""Files of anchors: text that grows by one anchor at a time."""

from __future__ import annotations

import os
from pathlib import Path

from herdbook.core.proof.checkpoint import Anchor, parse_anchors
from herdbook.events.errors import CallerError


def append_anchor(file: Path, anchor: Anchor) -> None:
    """Append an anchor to a file, durably; create the file if it does not exist.

    Raises:
        CallerError: The file cannot be written.
    """
    try:
        with file.open("a", encoding="utf-8") as target:
            target.write(f"{anchor.text()}\n")
            target.flush()
            os.fsync(target.fileno())
    except OSError as error:
        reason = error.strerror or error
        raise CallerError(f"Cannot write {str(file)!r}:", f"{reason}") from error


def read_anchor_file(file: Path) -> list[Anchor]:
    """Return the anchors of a file.

    Raises:
        CallerError: The file cannot be read, or a part of it is not an anchor.
    """
    try:
        text = file.read_text("utf-8")
    except OSError as error:
        reason = error.strerror or str(error)
        raise CallerError(str(file), f"cannot be read: {reason}", "") from error
    except UnicodeError as error:
        raise CallerError(str(file), "is not a text file of anchors", "") from error
    return parse_anchors(text, source=str(file))
