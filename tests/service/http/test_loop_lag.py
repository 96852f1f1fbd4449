"""No request holds the event loop for long, whatever it asks for.

The limit is in CPU time of the event loop's thread, so that a busy machine does not
count, and it follows the CPU time that a fixed piece of work takes at that moment, so
that a slow machine does not either. A request over the limit is made again to a new
service, since a garbage collection or a background task may have fallen into the
measurement; the test fails if it is over the limit every time.
"""

from __future__ import annotations

import asyncio
import gc
import re
from pathlib import Path

import pytest
from support.loop_lag import LoopLag, slowness
from support.service_program import ServiceThread, run_in_thread

from benchmarks.dataset import fill, names
from herdbook.core.concurrency.time_slice import SLICE_S

LIMIT_S = 0.1
"""CPU seconds that one request may hold the loop, on the reference machine."""

SLICES_S = 2 * SLICE_S
"""The part of it that does not depend on the machine: slices end by the clock, and
what becomes due during one slice runs after the next at the latest."""

EVENTS = 20_000
MODELS = 2_000
ATTEMPTS = 5

VALUES = {
    "name": names(1)[0],
    "position": str(EVENTS // 2),
    "role": "coding",
    "operation_id": "01936d00-0000-7000-8000-000000000000",
    "word": "unload",
    "path": "unknown",
}
"""A value for each parameter of a path."""

OLD = f"%23{EVENTS // 2}"
QUERIES = {
    "/v1/diff": (f"from={OLD}", f"from=%231&to={OLD}"),
    "/compare": ("", f"from={OLD}", f"from=%231&to={OLD}", f"from=%231&as_of={OLD}"),
    "/v1/models": (
        "",
        "gone=true&sort=-size",
        "role=coding",
        "capability=tools",
        f"as_of={OLD}",
    ),
    "/v1/events": (
        "limit=1000",
        "limit=1000&newest_first=true",
        "actor=nobody",
        "actor=nobody&newest_first=true",
        "stream_prefix=model/local/model-999",
    ),
    "/log": ("", f"as_of={OLD}", "actor=nobody", "model=model-999", "type=ModelUsed"),
    "/v1/models/{name}/history": ("limit=1000", "actor=nobody"),
    "/v1/models/{name}/cost": ("of=pull", "of=load", "of=unload", "of=delete"),
    "/": ("", "gone=true", f"as_of={OLD}"),
    "/v1/usage": (
        "",
        "by=day&by=client&format=csv",
        f"by=model&since={OLD}",
        f"as_of={OLD}",
    ),
    "/pull": (f"model={names(1)[0]}",),
    "/bulk": tuple(
        f"do={action}&" + "&".join(f"model={name}" for name in names(100))
        for action in ("delete", "unload", "pull")
    ),
    "/free": ("size=1MB", "size=900GB", "size=900TB"),
    "/v1/free": ("bytes=1", "bytes=900000000000000"),
    "/node": ("", "span=all", f"span=all&as_of={OLD}"),
    "/figures": tuple(f"of={each}&span=all" for each in ("memory", "disk", "requests")),
}
"""Queries that make much work, or that a path needs; the others are asked without."""

PATIENCE_S = 120
"""Longest time of an answer: CPU time is judged, and a busy machine takes its time."""

ENDLESS = {"/v1/events/stream"}
"""Paths with an endless response."""

EXPECTED = {200, 303, 403, 404, 502}
"""Answers to these requests; some need a server, or an operation that is not there."""


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a log with many events of many models."""
    path = tmp_path_factory.mktemp("lag") / "herd.db"
    asyncio.run(fill(path, EVENTS, MODELS))
    return path


def requests_of(service: ServiceThread) -> list[str]:
    """Return the requests to make: every path that the application answers to GET.

    Each is requested for now, and for a time in the past if it takes one.
    """
    asked = []
    for route in service.routes():
        if route in ENDLESS:
            continue
        path = re.sub(r"{(\w+)}", lambda found: VALUES[found[1]], route)
        path = path.replace("/static/" + VALUES["name"], "/static/live.js")
        queries = QUERIES.get(route, ("", f"as_of={OLD}"))
        asked += [f"{path}?{query}" if query else path for query in queries]
    return asked


def lag_of(service: ServiceThread, request: str) -> float:
    """Return the CPU seconds that a request holds the loop at most.

    Something is recorded first, so that no answer is one that was kept.
    """
    used = service.http.post(
        f"/v1/models/{names(1)[0]}/uses", json={}, timeout=PATIENCE_S
    )
    assert used.status_code == 201, used.text
    with LoopLag(service.loop).measured() as lag:
        answer = service.http.get(request, timeout=PATIENCE_S)
    if answer.status_code == 400 and "'as_of' is unknown" in answer.text:
        return 0.0  # a path without a past
    assert answer.status_code in EXPECTED, f"{request}: {answer.text}"
    return lag.longest_s


def limit() -> float:
    """Return the CPU seconds that one request may hold the loop here and now."""
    return SLICES_S + (LIMIT_S - SLICES_S) * max(1.0, slowness())


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_no_request_holds_the_event_loop(
    log: Path, request: pytest.FixtureRequest
) -> None:
    over: dict[str, float] = {}
    gc.collect()
    gc.freeze()  # as the process of a service does
    request.addfinalizer(gc.unfreeze)
    for _ in range(ATTEMPTS):
        with run_in_thread(log, "127.0.0.1:9") as service:
            asked = list(over) or requests_of(service)
            over = {
                path: lag
                for path in asked
                # The machine is measured only if that can change the result.
                if (lag := lag_of(service, path)) > LIMIT_S and lag > limit()
            }
        if not over:
            return
    result = [f"{lag * 1e3:.0f} ms: {path}" for path, lag in over.items()]
    pytest.fail("\n".join(result))
