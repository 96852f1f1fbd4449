"""Detect that this process has run out of file descriptors.

This is a failure of Herdbook itself. It must never be recorded or reported as a
failure of the server, or as missing permissions on the log.
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
    """Return whether an error, or one of its causes, is a lack of descriptors.

    The resolver and SQLite do not report the reason. For their errors, opening one
    more file shows whether descriptors are left.
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
    """Return whether this process can open one more file."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno not in _EXHAUSTED
    return True
