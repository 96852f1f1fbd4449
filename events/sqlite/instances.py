"""The running instances of Herdbook on a log: one is alive while it holds its lock.

An activity belongs to the instance that started it, and only the activity of a dead
instance may be recorded as interrupted. A living instance must never be taken for
dead, so the lock is one of the operating system (``flock``), which releases it when
the process ends for any reason. Ids are never reused.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import gethostname
from typing import Self
from urllib.parse import quote
from uuid import UUID
from weakref import WeakSet

import msgspec

from herdbook.events.errors import StoreUnavailableError
from herdbook.events.instances import Fence, Holder
from herdbook.events.recorded import new_id
from herdbook.events.shared.file_descriptors import RAISE_THE_LIMIT, is_exhausted

_SUFFIX = ".lock"

_open_instances: WeakSet[FileInstances] = WeakSet()
"""The instances of this process."""

_ANNOUNCED = ".streams"
"""Suffix of the JSON file with the streams that an instance announces."""

_decode_place = msgspec.json.Decoder(tuple[str, int]).decode

_LEASE = ".lease"
"""Suffix of the file that the holder of a lease locks; it contains the holder's id."""


class FileInstances:
    """Instances that share a directory, in one process or in several.

    Args:
        directory: Directory of the lock files, next to the log; created if missing.

    Raises:
        StoreUnavailableError: A lock file cannot be created.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._own = new_id()
        self._leases: dict[str, int] = {}
        with self._translated():
            _make_private(directory)
            self._lock: int | None = self._take_lock()
        _open_instances.add(self)
        try:
            for path in list(directory.glob(f"*{_SUFFIX}")):
                self._is_alive(path.name.removesuffix(_SUFFIX))
        except BaseException:
            self.close()  # else this process would hold the lock until it ends
            raise

    def _take_lock(self) -> int:
        """Lock a file before it gets its name, so that no process finds it unlocked."""
        unnamed = self._directory / f"{self._own}.new"
        descriptor = os.open(unnamed, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.write(descriptor, msgspec.json.encode((gethostname(), os.getpid())))
            unnamed.rename(self._path(self._own))
        except BaseException:  # such as a full disk
            os.close(descriptor)
            unnamed.unlink(missing_ok=True)
            raise
        return descriptor

    @property
    def own(self) -> str:
        """The id of this instance."""
        return self._own

    async def alive(self, instance: str) -> bool:
        """Return whether an instance is alive; remove its files if it is not.

        Raises:
            StoreUnavailableError: The lock file of the instance cannot be read.
        """
        return self._is_alive(instance)

    def _is_alive(self, instance: str) -> bool:
        if instance == self._own:
            return self._lock is not None
        if not _is_id(instance):
            return False
        path = self._path(instance)
        with self._translated():
            try:
                descriptor = os.open(path, os.O_RDWR)
            except FileNotFoundError:
                return False
            try:
                # Shared: two simultaneous checks must not see each other's lock.
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            else:
                self._announced_path(instance).unlink(missing_ok=True)
                path.unlink(missing_ok=True)
                return False
            finally:
                os.close(descriptor)

    async def announce(self, streams: Collection[str]) -> None:
        """Publish the streams that this instance changes, instead of earlier ones."""
        path = self._announced_path(self._own)
        with self._translated():
            if not streams:
                path.unlink(missing_ok=True)
                return
            # Replaced atomically, so that no reader sees half of it. No fsync: the
            # file is ignored once the lock is gone, as after a crash of the machine.
            new = path.with_suffix(".new-streams")
            new.write_bytes(msgspec.json.encode(list(streams)))
            new.replace(path)

    async def announced(self) -> frozenset[str]:
        """Return the streams that the other living instances announced."""
        found: set[str] = set()
        with self._translated():
            paths = list(self._directory.glob(f"*{_ANNOUNCED}"))
        for path in paths:
            instance = path.name.removesuffix(_ANNOUNCED)
            if instance == self._own or not self._is_alive(instance):
                continue
            with self._translated(), suppress(FileNotFoundError):
                found.update(_streams_in(path))
        return frozenset(found)

    async def hold(self, lease: str) -> bool:
        """Take a lease unless another instance has it; return whether it is held."""
        if lease in self._leases or self._lock is None:
            return lease in self._leases
        with self._translated():
            # The file stays when the lease ends: if it were deleted, one instance could
            # lock the deleted file and another one a new file of that name.
            descriptor = os.open(
                self._lease_path(lease), os.O_CREAT | os.O_RDWR, mode=0o600
            )
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.ftruncate(descriptor, 0)
                os.write(descriptor, self._own.encode())
            except BlockingIOError:
                os.close(descriptor)
                return False
            except BaseException:
                os.close(descriptor)
                raise
        self._leases[lease] = descriptor
        return True

    async def holds(self, lease: str) -> bool:
        """Return whether this instance holds a lease now; take nothing."""
        return lease in self._leases

    async def holders(self, leases: Collection[str]) -> dict[str, Holder]:
        """Return the instance that holds each of some leases, if one does."""
        ids: dict[str, str] = {}
        with self._translated():
            for lease in leases:
                with suppress(FileNotFoundError):
                    ids[lease] = self._lease_path(lease).read_text("ascii", "replace")
            known = {one: self._holder(one) for one in {*ids.values()} - {""}}
        return {
            lease: holder
            for lease, instance in ids.items()
            if (holder := known.get(instance)) is not None
        }

    def _holder(self, instance: str) -> Holder | None:
        """Return where an instance runs; None if it is dead."""
        if not self._is_alive(instance):
            return None
        with suppress(FileNotFoundError, msgspec.MsgspecError):
            host, process = _decode_place(self._path(instance).read_bytes())
            return Holder(instance, host, process)
        return Holder(instance)  # of an earlier version, whose lock files are empty

    def fence(self, lease: str) -> Fence:
        """Return the condition of an append that this instance holds a lease.

        Nobody can take the lock of this process, even if the process is stopped.
        """
        return Fence(lease, self._own, lambda: lease in self._leases)

    async def release(self, lease: str) -> None:
        """Release a lease, so that another instance can take it at once."""
        self._release(lease)

    def _release(self, lease: str) -> None:
        descriptor = self._leases.pop(lease, None)
        if descriptor is not None:
            with suppress(OSError):  # the text only says who held the lock
                os.ftruncate(descriptor, 0)
            os.close(descriptor)

    def _lease_path(self, lease: str) -> Path:
        return self._directory / f"{quote(lease, safe='')}{_LEASE}"

    def close(self) -> None:
        """Release the lock, which ends this instance; safe to call twice."""
        for lease in list(self._leases):
            self._release(lease)
        if self._lock is not None:
            self._announced_path(self._own).unlink(missing_ok=True)
            self._path(self._own).unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        """Return this object."""
        return self

    def __exit__(self, *_: object) -> None:
        """Release the lock."""
        self.close()

    def _path(self, instance: str) -> Path:
        return self._directory / f"{instance}{_SUFFIX}"

    def _close_in_child(self) -> None:
        """Close the lock file in a forked child, which would keep the lock alive."""
        while self._leases:
            os.close(self._leases.popitem()[1])
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

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
                else "Grant permission to read and write it",
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
        return [
            each
            for each in ids
            if each != instances.own and instances._is_alive(each)  # noqa: SLF001 - the same module
        ]


def _streams_in(path: Path) -> list[str]:
    """Return the streams in the file of an instance.

    Raises:
        StoreUnavailableError: Another program changed the file.
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
    """Create a directory that only its owner can access.

    A user who can open a lock file can lock it, and so make a dead instance look
    alive. An existing directory gets the same mode, unless others may write to it:
    then several users share the log.
    """
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.stat()
    if found.st_uid == os.geteuid() and not found.st_mode & 0o022:
        directory.chmod(0o700)


def _close_all_in_child() -> None:
    for instances in _open_instances:
        instances._close_in_child()  # noqa: SLF001 - the same module
    _open_instances.clear()


os.register_at_fork(after_in_child=_close_all_in_child)


class UnknownInstances:
    """The instances of a log that this process cannot write: nobody knows them.

    Every instance counts as alive, so that no activity is taken for interrupted.
    """

    def __init__(self, log: Path) -> None:
        self._log = log

    @property
    def own(self) -> str:
        """The id of this instance: it never starts an activity."""
        return ""

    async def alive(self, instance: str) -> bool:  # noqa: ARG002 - of the protocol
        """Return True: it is not known to have ended."""
        return True

    async def announce(self, streams: Collection[str]) -> None:
        """Refuse changes, which every command announces before it asks the server.

        Raises:
            StoreUnavailableError: There is something to announce.
        """
        if streams:
            raise StoreUnavailableError(
                str(self._log),
                "cannot be written, so nothing was changed",
                "Grant permission to write the file and its directory",
            )

    async def announced(self) -> frozenset[str]:
        """Return an empty set: what other instances do is not known."""
        return frozenset()

    async def hold(self, lease: str) -> bool:  # noqa: ARG002 - of the protocol
        """Take no lease: this process records nothing."""
        return False

    async def holds(self, lease: str) -> bool:  # noqa: ARG002 - of the protocol
        """Return False: no lease is taken."""
        return False

    async def holders(
        self,
        leases: Collection[str],  # noqa: ARG002 - of the protocol
    ) -> dict[str, Holder]:
        """Return nothing: it is not known."""
        return {}

    def fence(self, lease: str) -> Fence:
        """Return a condition that is never met."""
        return Fence(lease, self.own, lambda: False)

    async def release(self, lease: str) -> None:
        """Do nothing: no lease is held."""


def _is_id(text: str) -> bool:
    """Return whether a text has the form of an instance id, and is a safe file name."""
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False
