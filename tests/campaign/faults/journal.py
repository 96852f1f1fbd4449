"""What a program did before it died: written to a file, line by line."""

from __future__ import annotations

import os
from pathlib import Path


class Journal:
    """What a program submitted and what was acknowledged, written before it can die."""

    def __init__(self, file: Path) -> None:
        self._file = os.open(file, os.O_CREAT | os.O_WRONLY | os.O_APPEND)

    def submit(self, event_id: str) -> None:
        """Write that an event will be appended."""
        os.write(self._file, f"submitted {event_id}\n".encode())

    def acknowledge(self, what: str) -> None:
        """Write that an event is recorded, or that a command succeeded."""
        os.write(self._file, f"acknowledged {what}\n".encode())


def read_journal(file: Path) -> tuple[set[str], set[str]]:
    """Return what was submitted, and what was acknowledged."""
    lines = [line.split() for line in file.read_text().splitlines()]
    submitted, acknowledged = (
        {what for kind, what in lines if kind == wanted}
        for wanted in ("submitted", "acknowledged")
    )
    return submitted, acknowledged
