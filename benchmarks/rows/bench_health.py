"""``/healthz`` while other requests ask for the past of a long log."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from random import Random

from benchmarks.dataset import copy_filled_in_turns
from benchmarks.measure import Row, at_most_more, interleave
from benchmarks.program import program
from benchmarks.rows.bench_http import ask, connected, timed
from benchmarks.sizes import Sizes

CALLERS = 8
"""Requests for the past at the same time."""


async def run(folder: Path, sizes: Sizes) -> list[Row]:
    """Measure what requests for the past add to a short request."""
    log = folder / "health.db"
    await copy_filled_in_turns(log, sizes.past, sizes.served)
    serve = ["-m", "herdbook.cli", "serve", "--json", "--port", "0", "--db", str(log)]
    with program(*serve, "--ollama", "127.0.0.1:9") as line:
        address = json.loads(line)["address"]
        with closing(connected(address, timeout_s=600)) as service:
            # The first question builds the snapshots.
            ask(service, f"/v1/models?as_of=%23{sizes.past}")

            async def busy() -> float:
                with _asking(address, sizes.past):
                    return await timed(service, "/healthz", sizes.requests)

            alone = partial(timed, service, "/healthz", sizes.requests)
            medians = await interleave(sizes.rounds, busy, alone)
    during, before = (figure * 1e3 for figure in medians)
    return [
        Row(
            what=f"/healthz during {CALLERS} requests for the past, "
            f"{sizes.past:,} events, {sizes.served:,} models",
            unit="ms",
            ours=during,
            beside="/healthz alone",
            theirs=before,
            goal=at_most_more(20),
        )
    ]


@contextmanager
def _asking(address: str, events: int) -> Iterator[None]:
    """Ask for states and differences at random positions, from several threads."""
    stop = threading.Event()

    def request(number: int) -> None:
        chance = Random(number)
        with closing(connected(address, timeout_s=600)) as connection:
            while not stop.is_set():
                old, new = sorted(chance.sample(range(1, events + 1), 2))
                ask(connection, f"/v1/models?as_of=%23{old}")
                ask(connection, f"/v1/diff?from=%23{old}&to=%23{new}")

    callers = [threading.Thread(target=request, args=(n,)) for n in range(CALLERS)]
    for caller in callers:
        caller.start()
    try:
        yield
    finally:
        stop.set()
        for caller in callers:
            caller.join()
