"""What to do about a file that cannot be read, from the error of the system."""

from __future__ import annotations


def read_remedy(error: OSError) -> str:
    """Return what to do about a file that cannot be read."""
    match error:
        case IsADirectoryError():
            return "Give the path of a file, not of a directory"
        case PermissionError():
            return "Grant read access to it"
        case FileNotFoundError() | NotADirectoryError():
            return "Check the path"
    return "Check the path and the disk"
