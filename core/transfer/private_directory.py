"""A directory for a file that is being written, next to its final place.

A process that is killed leaves the directory with a copy of the log in it. The next one
that writes to the same place removes it: each directory is locked (``flock``) by the
process that uses it, and the lock ends with the process.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from herdbook.events.errors import CallerError, StoreError
from herdbook.events.shared.cancellation import finish

_NEW = ".herdbook-new-"
"""The name of a directory that is not locked yet, or cannot be locked."""

_LOCKED = ".herdbook-writing-"
"""The name of a directory once it is locked."""


@asynccontextmanager
async def private_directory(parent: Path) -> AsyncIterator[Path]:
    """Make a private directory next to the target, so that a rename is atomic.

    A ``StoreError`` about a file in it names the file as it would be called next to it.

    Raises:
        CallerError: It cannot be made.
    """
    making = asyncio.ensure_future(asyncio.to_thread(_make, parent))
    try:
        made, lock = await finish(making)
    except asyncio.CancelledError:
        await _remove(*making.result())
        raise
    except OSError as error:
        raise CallerError(
            str(parent),
            f"cannot be written: {error.strerror or error}",
            "Choose an existing directory that you can write to",
        ) from error
    try:
        yield made
    except StoreError as error:
        # Users know the name that the file would have got, not the directory.
        if Path(error.subject).parent == made:
            error.subject = str(parent / Path(error.subject).name)
        raise
    finally:
        await _remove(made, lock)


async def _remove(made: Path, lock: int) -> None:
    try:
        await finish(asyncio.to_thread(shutil.rmtree, made, ignore_errors=True))
    finally:
        os.close(lock)


def _make(parent: Path) -> tuple[Path, int]:
    """Return a new directory, and the file descriptor that locks it."""
    for left in parent.glob(f"{_LOCKED}*"):
        _remove_if_dead(left)
    new = Path(tempfile.mkdtemp(prefix=_NEW, dir=parent))
    lock = os.open(new, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:  # NFS cannot lock a directory; others leave this name alone
            return new, lock
        made = new.with_name(new.name.replace(_NEW, _LOCKED))
        new.rename(made)
    except BaseException:
        os.close(lock)
        raise
    return made, lock


def _remove_if_dead(left: Path) -> None:
    """Remove a directory unless a process uses it, or it is another user's."""
    with suppress(OSError):
        lock = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)
        finally:
            os.close(lock)
