"""The command ``herdbook``: what the library can do, for people and for scripts."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit code.

    Args:
        arguments: What follows the command's name; by default the process's own.
    """
    try:
        # Here and not above: importing the package must cost nothing.
        from herdbook.cli.main import main  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name not in {"platformdirs", "rich", "typer"}:
            raise
        sys.stderr.write(
            f"herdbook: the command is not installed ({error.name} is missing). "
            "To get it: pip install 'herdbook[cli]'   (exit 1)\n"
        )
        return 1
    except KeyboardInterrupt:
        return _stopped()
    try:
        return main(arguments)
    except KeyboardInterrupt:  # before or after the verb, which tells more
        return _stopped()


def _stopped() -> int:
    sys.stderr.write("herdbook: stopped   (exit 1)\n")
    return 1
