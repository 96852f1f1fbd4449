"""The command ``herdbook``: the library on the command line, for people and scripts."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    Args:
        arguments: Arguments after the command's name; by default those of the process.
    """
    _open_missing_streams()
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given == ["--version"] and _wrote_version():
        return 0
    # Where Rich is installed, httpx imports its own command line, and Pygments with it.
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
    # What imports create stays: looking for garbage in it takes 4% of ``herdbook ls``.
    collects = gc.isenabled()
    gc.disable()
    try:
        # Imported late: importing the package stays cheap for the library.
        from herdbook.cli.main import main  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name not in {"platformdirs", "rich", "typer"}:
            raise
        sys.stderr.write(
            f"herdbook: the command line is not installed ({error.name} is missing). "
            "Install it: pip install 'herdbook[cli]'   (exit 1)\n"
        )
        return 1
    except KeyboardInterrupt:
        return _stopped()
    finally:
        if collects:
            gc.enable()
    try:
        return main(given)
    except KeyboardInterrupt:  # outside a verb; a verb reports it with its own name
        return _stopped()


def _wrote_version() -> bool:
    """Write the version without the imports of the command, if stdout accepts it."""
    from herdbook.cli.version import version_text  # noqa: PLC0415 - only this needs it

    try:
        sys.stdout.write(f"{version_text()}\n")
        sys.stdout.flush()
    except (OSError, ValueError):
        return False  # reported as any other failure to write
    return True


def _open_missing_streams() -> None:
    """Replace standard streams that were closed before the start.

    Otherwise the next file that is opened, such as the log, would get their number.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            mode = "w" if number else "r"
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115 - kept


def _stopped() -> int:
    sys.stderr.write("herdbook: stopped   (exit 1)\n")
    return 1
