"""HTTP: all statuses, compared with the same bytes from a bare route."""

from __future__ import annotations

import http.client
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

from benchmarks.dataset import fill, names
from benchmarks.measure import Row, at_least, at_most, interleave
from benchmarks.program import program
from benchmarks.sizes import Sizes

_STATUS = "/v1/status"


async def run(folder: Path, sizes: Sizes) -> list[Row]:
    """Measure the most frequent answers."""
    log, same = folder / "full.db", folder / "bytes"
    await fill(log, sizes.served * 4, sizes.served)
    serve = ["-m", "herdbook.cli", "serve", "--json", "--port", "0", "--db", str(log)]
    with program(*serve, "--ollama", "127.0.0.1:9") as line:
        service = connected(json.loads(line)["address"])
        same.write_bytes(ask(service, _STATUS))
        with program("-m", "benchmarks.bare", str(same)) as address:
            bare = connected(address)
            still = partial(timed, service, _STATUS, sizes.requests)
            moved = partial(_moved, service, sizes.requests)
            floor = partial(timed, bare, "/bare", sizes.requests)
            medians = await interleave(sizes.rounds, still, moved, floor)
    ours, ours_moved, theirs = (figure * 1e3 for figure in medians)
    what = f"status of {sizes.served:,} models over HTTP"
    beside = "the same bytes, bare route"
    return [
        Row(
            what=what,
            unit="ms",
            ours=ours,
            beside=beside,
            theirs=theirs,
            goal=at_least(0.5),
        ),
        Row(
            what=f"{what}, the log having moved",
            unit="ms",
            ours=ours_moved,
            beside=beside,
            theirs=theirs,
            goal=at_most(8),
        ),
    ]


def connected(address: str, timeout_s: float = 30) -> http.client.HTTPConnection:
    """Return a connection to a service."""
    host, _, port = address.removeprefix("http://").rpartition(":")
    return http.client.HTTPConnection(host, int(port), timeout=timeout_s)


def ask(
    connection: http.client.HTTPConnection, path: str, body: bytes | None = None
) -> bytes:
    """Return the body of the answer to a request."""
    headers = {} if body is None else {"content-type": "application/json"}
    method = "GET" if body is None else "POST"
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    read = answer.read()
    assert answer.status < 300, read
    return read


async def timed(
    connection: http.client.HTTPConnection, path: str, requests: int
) -> float:
    """Return the median of a number of requests, one after another, s."""
    return median(_times(connection, path, [None] * requests))


async def _moved(connection: http.client.HTTPConnection, requests: int) -> float:
    """Return the same with an event before each request."""
    uses = [f"/v1/models/{name}/uses" for name in names(1)] * requests
    return median(_times(connection, _STATUS, uses))


def _times(
    connection: http.client.HTTPConnection, path: str, before: Sequence[str | None]
) -> list[float]:
    taken = []
    for first in before:
        if first is not None:
            ask(connection, first, b"{}")
        started = perf_counter()
        ask(connection, path)
        taken.append(perf_counter() - started)
    return taken
