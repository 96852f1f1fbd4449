"""What this process lacks itself: file descriptors.

Running out of them is our own failure. It must never be recorded, or reported, as a
failure of the server or of the log's permissions.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Final

from herdbook.events.errors import HerdbookError

TOO_MANY: Final = "this process has too many open files"
RAISE_THE_LIMIT: Final = (
    "Raise the limit of open files, for example: ulimit -n 1024 (systemd: LimitNOFILE=)"
)

_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE})


class ResourceExhaustedError(HerdbookError):
    """This process, or the whole system, has too many open files."""

    code = "resource_exhausted"


def is_exhausted(error: BaseException | None) -> bool:
    """Return whether an error, or what led to it, is a lack of descriptors.

    The resolver and SQLite keep the reason to themselves; where one of them may have
    met it, a descriptor is asked for.
    """
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, socket.gaierror):
            if not has_descriptors():
                return True
        elif isinstance(one, OSError) and one.errno in _EXHAUSTED:
            return True
        if isinstance(one, BaseExceptionGroup):
            waiting.extend(one.exceptions)
        waiting += [one.__cause__, one.__context__]
    return False


def has_descriptors() -> bool:
    """Return whether one more file could be opened now."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno not in _EXHAUSTED
    return True
