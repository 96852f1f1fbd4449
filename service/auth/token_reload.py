"""The tokens of the service, reloaded when the token file changes."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from herdbook.core.logging import Logger
from herdbook.service.auth.tokens import Token, load_tokens
from herdbook.service.errors import InvalidServiceError

CHECK_EVERY_S: Final = 1.0
"""Minimum time between two checks of the file, in seconds."""

_LOG: Final = Logger("herdbook.tokens")

_Stamp = tuple[int, int, int] | None


class TokenReloader:
    """The tokens of a file and of the environment.

    The file is checked when a request arrives, at most once a second. Its inode is
    compared too, because an editor that replaces the file may keep its time and size.

    Args:
        fixed: The tokens that never change, from the environment.
        file: The token file; None if there is none.
        monotonic: A monotonic clock, in seconds.
        wall: Seconds since 1970.

    Attributes:
        fixed: The tokens from the environment.
        file: The token file.
        tokens: All tokens that are valid now.
        failing_since: The time of the first failed reload; None after a good one.
        error: The error of the last reload, if it failed. ``tokens`` are then those
            of the last good file.

    Raises:
        InvalidServiceError: The file is not valid at the start.
    """

    def __init__(
        self,
        fixed: tuple[Token, ...],
        file: Path | None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.fixed = fixed
        self.file = file
        self.failing_since: datetime | None = None
        self.error: InvalidServiceError | None = None
        self._monotonic = monotonic
        self._wall = wall
        # Before the file is read: a change during the read is then seen later.
        self._stamp = _stamp(file)
        self._checked_at = monotonic()
        self.tokens = load_tokens(file, fixed)

    def refresh(self, *, now: bool = False) -> bool:
        """Reload the file if it has changed.

        An invalid file keeps the old tokens: a typing error must not lock out
        everyone, nor let everyone in.

        Args:
            now: Check the file also if the last check is less than a second ago.

        Returns:
            Whether the tokens have changed.
        """
        if self.file is None:
            return False
        at = self._monotonic()
        if not now and at - self._checked_at < CHECK_EVERY_S:
            return False
        self._checked_at = at
        stamp = _stamp(self.file)
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            tokens = load_tokens(self.file, self.fixed)
        except InvalidServiceError as error:
            self.error = error
            if self.failing_since is None:
                self.failing_since = datetime.fromtimestamp(self._wall(), UTC)
            _LOG.warning("token_file_not_reloaded", reason=str(error))
            return False
        self.error = self.failing_since = None
        if tokens == self.tokens:
            return False
        self.tokens = tokens
        _LOG.info("token_file_reloaded", names=[token.name for token in tokens])
        return True


def _stamp(file: Path | None) -> _Stamp:
    """Return time, inode and size of a file; None if it cannot be read."""
    try:
        status = file.stat() if file else None
    except OSError:
        return None
    return status and (status.st_mtime_ns, status.st_ino, status.st_size)
