"""The command ``herdbook``: the library on the command line, for people and scripts."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    Args:
        arguments: Arguments after the command's name; by default those of the process.
    """
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
    try:
        return main(arguments)
    except KeyboardInterrupt:  # outside a verb; a verb reports it with its own name
        return _stopped()


def _stopped() -> int:
    sys.stderr.write("herdbook: stopped   (exit 1)\n")
    return 1
