"""Read TOML files that users write; errors are one line that names the file."""

from __future__ import annotations

import tomllib
from pathlib import Path

from herdbook.core.errors import CallerError


def read_toml(path: Path, what: str, refused: type[CallerError]) -> dict[str, object]:
    """Read the tables of a file.

    Args:
        path: The file.
        what: The kind of file, for the error.
        refused: The class of the error.

    Raises:
        CallerError: As ``refused``: the file cannot be read, or is not TOML.
    """
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise refused(f"{what} {path}", f"cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise refused(f"{what} {path}", f"is not TOML: {error}") from error
