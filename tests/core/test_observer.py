"""What an observer receives: measurements of each append and each request."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import NamedTuple

import pytest
from support.manager_fixture import SandboxServer, pull_to_end, serve_sandbox

from herdbook.core import (
    CallerError,
    LoadFailedError,
    ModelManager,
    NodeUnreachableError,
    Observer,
    PullError,
)
from herdbook.core.observer import NO_OBSERVER

BIG = "llama3.2:1b"
NAME = "llava:7b"


class Asked(NamedTuple):
    method: str
    path: str
    seconds: float
    failure: str | None


class Figures:
    """An observer that keeps what it receives."""

    def __init__(self) -> None:
        self.appends: list[tuple[int, float]] = []
        self.requests: list[Asked] = []

    def forget(self) -> None:
        self.appends.clear()
        self.requests.clear()

    def appended(self, *, events: int, seconds: float) -> None:
        self.appends.append((events, seconds))

    def asked(
        self, *, method: str, path: str, seconds: float, failure: str | None
    ) -> None:
        self.requests.append(Asked(method, path, seconds, failure))

    def of(self, path: str) -> list[Asked]:
        return [one for one in self.requests if one.path == path]


@asynccontextmanager
async def observed(
    models: str = "herd",
) -> AsyncIterator[tuple[SandboxServer, ModelManager, Figures]]:
    """Serve a world, with a manager of it that is observed; forget its first look."""
    figures = Figures()
    async with (
        serve_sandbox(models) as server,
        ModelManager.open(
            ":memory:", ollama=server.url, clock=server.clock, observer=figures
        ) as manager,
    ):
        figures.forget()
        yield server, manager, figures


async def test_observer_receives_every_request_of_a_refresh() -> None:
    async with observed() as (_, manager, figures):
        await manager.refresh()

        result = {(one.method, one.path, one.failure) for one in figures.requests}
        assert result == {
            ("GET", "/api/version", None),
            ("GET", "/api/tags", None),
            ("GET", "/api/ps", None),
        }
        assert len(figures.requests) == 3
        assert figures.appends == []


async def test_as_many_requests_are_observed_as_the_server_received() -> None:
    async with observed() as (server, manager, figures):
        before = Counter(seen.path for seen in server.world.seen)
        await manager.load(NAME)
        await manager.unload(NAME)
        await pull_to_end(manager, "plain")
        await manager.delete("plain")

        seen = Counter(seen.path for seen in server.world.seen) - before
        assert Counter(one.path for one in figures.requests) == seen


async def test_every_append_is_reported_with_its_events() -> None:
    async with observed("none") as (_, manager, figures):
        await manager.configure(NAME, {"num_ctx": 1024})
        await manager.ensure_available(BIG)

        assert sum(events for events, _ in figures.appends) == (
            (await manager.now()).position - 1  # the node's first look
        )
        assert all(seconds >= 0 for _, seconds in figures.appends)


async def test_append_that_the_log_refuses_is_not_reported() -> None:
    async with observed() as (_, manager, figures):
        with manager.acting_as("two\nlines"), pytest.raises(CallerError):
            await manager.mark_used(NAME)

        assert figures.appends == []


async def test_slow_request_is_reported_with_its_seconds() -> None:
    async with observed() as (server, manager, figures):
        server.apply(runner_start_delay_s=7)

        await manager.load(NAME)

        (load,) = figures.of("/api/generate")
        assert (load.method, load.failure) == ("POST", None)
        assert load.seconds == pytest.approx(7.25, abs=0.1)


async def test_pull_is_reported_as_one_request() -> None:
    async with observed("none") as (server, manager, figures):
        server.apply(registry={"rate": 1e7})

        await manager.ensure_available(BIG)

        (pull,) = figures.of("/api/pull")
        assert pull.failure is None
        assert pull.seconds > 10


async def test_failure_is_reported_by_its_code() -> None:
    async with observed() as (server, manager, figures):
        server.apply(runner_dies_saying="CUDA error: out of memory")
        with pytest.raises(LoadFailedError) as raised:
            await manager.load(NAME)

        (load,) = figures.of("/api/generate")
        assert load.failure == raised.value.kind


async def test_pull_that_fails_is_reported_by_its_code() -> None:
    async with observed("none") as (_, manager, figures):
        with pytest.raises(PullError) as raised:
            await pull_to_end(manager, "nobody:1b")

        assert [one.failure for one in figures.of("/api/pull")] == [raised.value.kind]


async def test_invalid_answer_is_reported_as_a_failure() -> None:
    async with observed() as (server, manager, figures):
        server.apply(answer={"path": "/api/ps", "status": 200, "body": "nonsense"})
        await manager._try_refresh()

        assert [one.failure for one in figures.of("/api/ps")] == ["bad_answer"]


async def test_unreachable_server_is_reported_for_every_request() -> None:
    async with observed() as (server, manager, figures):
        server.apply(server="killed")
        with pytest.raises(NodeUnreachableError):
            await manager.refresh()

        failures = {one.failure for one in figures.requests}
        assert "node_unreachable" in failures
        assert failures <= {"node_unreachable", "cancelled"}


async def test_cancelled_load_is_reported_as_cancelled() -> None:
    async with observed() as (server, manager, figures):
        server.apply(runner_start_delay_s=60)
        loading = asyncio.create_task(manager.load(NAME))
        await server.clock.sleep(5)
        await manager.cancel(NAME)
        await asyncio.wait([loading])

        (load,) = figures.of("/api/generate")
        assert load.failure == "cancelled"
        assert load.seconds == pytest.approx(5, abs=1)


async def test_abandoned_pull_is_reported_as_cancelled() -> None:
    async with observed("none") as (server, manager, figures):
        server.apply(registry={"rate": 1e6})
        async with aclosing(manager.pull(BIG)) as progress:
            await anext(progress)

        assert [one.failure for one in figures.of("/api/pull")] == ["cancelled"]


def test_default_observer_does_nothing() -> None:
    nobody: Observer = NO_OBSERVER

    nobody.appended(events=1, seconds=0.1)
    nobody.asked(method="GET", path="/api/ps", seconds=0.1, failure=None)
