"""Run the sandbox from the command line: ``python -m herdbook.sandbox``.

Invariant: the words of the command line become options and nothing else.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from herdbook.sandbox.run import Options, run_sandbox
from herdbook.sandbox.settings import PROFILES


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Read the command line; the server's own variables come from the environment."""
    usual = Options()
    parser = argparse.ArgumentParser(
        prog="python -m herdbook.sandbox",
        description="Serve a simulated Ollama server; no model is run.",
    )
    parser.add_argument("--host", default=usual.host)
    parser.add_argument("--port", type=int, default=usual.port)
    parser.add_argument(
        "--models", choices=("none", "herd", "some", "use"), default="some"
    )
    parser.add_argument(
        "--clock",
        choices=("real", "manual"),
        default=usual.clock,
        help='manual: time stops until POST /sandbox/clock {"advance": SECONDS}',
    )
    parser.add_argument("--speed", type=float, default=usual.speed)
    parser.add_argument(
        "--token-s", type=float, default=usual.token_s, help="seconds per token"
    )
    parser.add_argument("--memory", type=int, help="bytes for all runners")
    parser.add_argument("--vram", type=int, default=usual.vram, help="bytes of them")
    parser.add_argument("--registry-rate", type=float, help="bytes per second")
    parser.add_argument("--profile", choices=sorted(PROFILES), default="current")
    parser.add_argument("--state", type=Path, help="a folder that keeps the models")
    options = vars(parser.parse_args(arguments))
    mine = {k: v for k, v in os.environ.items() if k.startswith("OLLAMA_")}
    return Options(environment=mine, **options)


if __name__ == "__main__":
    run_sandbox(parse())
