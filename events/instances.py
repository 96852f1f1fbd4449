"""Who is at work on a log: an instance is alive as long as it holds its lock.

An activity belongs to the instance that started it, and only a dead one's may be
called interrupted. So death must never be told of the living: the lock is the
operating system's (``flock``), which drops it when the process ends, however it
ends. An id is never used again.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import UUID
from weakref import WeakSet

import msgspec

from herdbook.events.errors import StoreUnavailableError
from herdbook.events.file_descriptors import RAISE_THE_LIMIT, is_exhausted
from herdbook.events.recorded import new_id

_SUFFIX = ".lock"

_open_here: WeakSet[FileInstances] = WeakSet()
"""The instances of this process."""
_ANNOUNCED = ".streams"
"""The file beside an instance's lock with the streams that it announces, as JSON."""


class FileInstances:
    """Instances that share a directory, in one process or in several.

    Args:
        directory: Where each instance keeps its lock file; it is made if it is
            not there. It belongs beside the log.

    Raises:
        StoreUnavailableError: No lock file can be kept there.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._own = new_id()
        with self._translated():
            _make_private(directory)
            self._held: int | None = self._take_lock()
        _open_here.add(self)
        for path in list(directory.glob(f"*{_SUFFIX}")):
            self.alive(path.name.removesuffix(_SUFFIX))

    def _take_lock(self) -> int:
        """Lock a file before it has its name, so that nobody sees it unlocked."""
        nameless = self._directory / f"{self._own}.new"
        descriptor = os.open(nameless, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        nameless.rename(self._path(self._own))
        return descriptor

    @property
    def own(self) -> str:
        """The id of this instance."""
        return self._own

    def alive(self, instance: str) -> bool:
        """Return whether that instance is alive; forget its file if it is not.

        Raises:
            StoreUnavailableError: Its lock file cannot be read.
        """
        if instance == self._own:
            return self._held is not None
        if not _is_id(instance):
            return False
        path = self._path(instance)
        with self._translated():
            try:
                descriptor = os.open(path, os.O_RDWR)
            except FileNotFoundError:
                return False
            try:
                # Shared: two that ask at once must not take each other for it.
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            else:
                self._announced_path(instance).unlink(missing_ok=True)
                path.unlink(missing_ok=True)
                return False
            finally:
                os.close(descriptor)

    def announce(self, streams: Collection[str]) -> None:
        """Publish the streams that this instance changes, in place of those before."""
        path = self._announced_path(self._own)
        with self._translated():
            if not streams:
                path.unlink(missing_ok=True)
                return
            # Replaced as a whole, so that nobody reads half of it. It says nothing
            # once the lock is gone, so it need not survive a crash of the machine.
            new = path.with_suffix(".new-streams")
            new.write_bytes(msgspec.json.encode(list(streams)))
            new.replace(path)

    def announced(self) -> frozenset[str]:
        """Return the streams that the other living instances have announced."""
        found: set[str] = set()
        with self._translated():
            paths = list(self._directory.glob(f"*{_ANNOUNCED}"))
        for path in paths:
            instance = path.name.removesuffix(_ANNOUNCED)
            if instance == self._own or not self.alive(instance):
                continue
            with self._translated(), suppress(FileNotFoundError):
                found.update(_streams_in(path))
        return frozenset(found)

    def close(self) -> None:
        """Let go of the lock: from now on this instance is dead. Twice is fine."""
        if self._held is not None:
            self._announced_path(self._own).unlink(missing_ok=True)
            self._path(self._own).unlink(missing_ok=True)
            os.close(self._held)
            self._held = None

    def __enter__(self) -> Self:
        """Return the instances themselves."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let go of the lock."""
        self.close()

    def _path(self, instance: str) -> Path:
        return self._directory / f"{instance}{_SUFFIX}"

    def _forget(self) -> None:
        """Let go of the lock in a fork: there it would outlive this process."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def _announced_path(self, instance: str) -> Path:
        return self._directory / f"{instance}{_ANNOUNCED}"

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreUnavailableError(
                str(self._directory),
                f"cannot keep lock files: {error.strerror}",
                RAISE_THE_LIMIT
                if is_exhausted(error)
                else "Give permission to read and write it",
            ) from error


def living(directory: Path) -> list[str]:
    """Return the ids of the instances that use a directory now.

    Raises:
        StoreUnavailableError: A lock file cannot be read.
    """
    if not directory.is_dir():
        return []
    with FileInstances(directory) as instances:
        ids = [
            path.name.removesuffix(_SUFFIX) for path in directory.glob(f"*{_SUFFIX}")
        ]
        return [each for each in ids if each != instances.own and instances.alive(each)]


def _streams_in(path: Path) -> list[str]:
    """Return the streams that an instance has announced in a file.

    Raises:
        StoreUnavailableError: Another program altered the file.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[str])
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise StoreUnavailableError(
            str(path),
            f"is damaged: {error}",
            "Stop the Herdbook process that wrote it, or delete the file",
        ) from error


def _make_private(directory: Path) -> None:
    """Make a directory for its owner alone.

    Whoever can open a lock file can lock it, and so keep the dead alive. One that an
    older version made gets the same mode, unless others may write in it: then several
    users share the log.
    """
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.stat()
    if found.st_uid == os.geteuid() and not found.st_mode & 0o022:
        directory.chmod(0o700)


def _forget_all() -> None:
    for instances in _open_here:
        instances._forget()  # noqa: SLF001 - the same module
    _open_here.clear()


os.register_at_fork(after_in_child=_forget_all)


class MemoryInstances:
    """Instances in one process, for a log in memory.

    Args:
        living: The ids of those alive; instances that share it know each other.
    """

    def __init__(self, living: set[str] | None = None) -> None:
        self._living = set() if living is None else living
        self._own = new_id()
        self._living.add(self._own)

    @property
    def own(self) -> str:
        """The id of this instance."""
        return self._own

    def alive(self, instance: str) -> bool:
        """Return whether that instance is alive."""
        return instance in self._living

    def announce(self, streams: Collection[str]) -> None:
        """Publish nothing: a log in memory has one manager."""

    def announced(self) -> frozenset[str]:
        """Return the streams of other instances: there are none."""
        return frozenset()

    def close(self) -> None:
        """From now on this instance is dead. Twice is fine."""
        self._living.discard(self._own)

    def __enter__(self) -> Self:
        """Return the instances themselves."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End this instance."""
        self.close()


def _is_id(text: str) -> bool:
    """Return whether it is an id as ours are, and so the name of a file."""
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False
