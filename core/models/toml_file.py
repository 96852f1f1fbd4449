"""A TOML file that a person wrote: read, or refused in one line that names it."""

from __future__ import annotations

import tomllib
from pathlib import Path

from herdbook.core.errors import CallerError


def read_toml(path: Path, what: str, refused: type[CallerError]) -> dict[str, object]:
    """Return the tables of a file.

    Args:
        path: The file.
        what: What it is to be, for the error.
        refused: The class of the error.

    Raises:
        CallerError: As ``refused``: it cannot be read, or is not TOML.
    """
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise refused(f"{what} {path}", f"cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise refused(f"{what} {path}", f"is not TOML: {error}") from error
