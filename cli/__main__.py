"""Run the command without its script: ``python -m herdbook.cli``."""

from __future__ import annotations

import sys

from herdbook.cli import run

if __name__ == "__main__":
    sys.exit(run())
