"""Read TOML files that users write; errors are one line that names the file."""

from __future__ import annotations

from pathlib import Path

from herdbook.core.errors import CallerError
from herdbook.core.errors.files import read_remedy


def read_toml(path: Path, what: str, refused: type[CallerError]) -> dict[str, object]:
    """Read the tables of a file.

    Args:
        path: The file.
        what: The kind of file, for the error.
        refused: The class of the error.

    Raises:
        CallerError: As ``refused``: the file cannot be read, or is not TOML.
    """
    name = f"{what} {path}"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise refused(
            name, f"cannot be read: {error.strerror}", read_remedy(error)
        ) from error
    return parse_toml(content, name, refused)


def parse_toml(
    content: bytes, name: str, refused: type[CallerError]
) -> dict[str, object]:
    """Parse the tables of a file.

    Args:
        content: The content of the file.
        name: Kind and path of the file, for the error.
        refused: The class of the error.

    Raises:
        CallerError: As ``refused``: the content is not TOML.
    """
    import tomllib  # noqa: PLC0415 - few calls read one, and it compiles patterns

    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        raise refused(
            name, "is not TOML: it is not UTF-8", "Save it as UTF-8"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise refused(name, f"is not TOML: {error}", "Correct that line") from error
