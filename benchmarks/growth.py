"""How durations grow with the log and with the models: ``python -m benchmarks.growth``.

Measures logs of growing sizes, keeps the result as ``docs/growth.json``, and draws it.
With ``--draw`` the kept result is drawn again. The durations are CPU times of all
threads, so that other programs disturb them less; they have no waits for the disk.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import process_time

import msgspec

from benchmarks import results
from benchmarks.dataset import fill_in_turns, names, open_manager
from benchmarks.measure import Machine, describe_machine, print_progress
from benchmarks.plots import Growth, Line, draw
from herdbook.core import ModelManager, ModelRole
from herdbook.core.views import Views
from herdbook.events.sqlite.store import SQLiteEventStore
from herdbook.events.verify import verify

DOCS = Path(__file__).parent.parent / "docs"
EVENTS = (1_000, 10_000, 100_000, 1_000_000)
MODELS = (10, 100, 1_000, 10_000)
ROUNDS = 5
SHARES = (0.1, 0.35, 0.6, 0.85)
"""Positions of the questions about the past, as shares of the log."""


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """A kept run.

    Attributes:
        schema: The number of this form.
        started: When the run started.
        commit: The commit, as in the results of the benchmarks.
        load: Load averages when the run started and when it ended.
        machine: Where it ran.
        events: Growth with the log.
        models: Growth with the models.
    """

    schema: int
    started: datetime
    commit: str | None
    load: tuple[tuple[float, float, float], tuple[float, float, float]]
    machine: Machine
    events: Growth
    models: Growth


async def measure(
    folder: Path,
    *,
    events: tuple[int, ...] = EVENTS,
    models: tuple[int, ...] = MODELS,
    few_models: int = 100,
    some_events: int = 60_000,
) -> Reference:
    """Measure both kinds of growth.

    Args:
        folder: Where the logs are made; on the disk of interest.
        events: Lengths of the logs with ``few_models``.
        models: Numbers of models in the logs of ``some_events``.
        few_models: See ``events``.
        some_events: See ``models``.
    """
    started, load = datetime.now(UTC), os.getloadavg()
    by_events = [await _measured(folder, size, few_models) for size in events]
    by_models = [await _measured(folder, some_events, size) for size in models]
    return Reference(
        schema=1,
        started=started,
        commit=results.commit(),
        load=(load, os.getloadavg()),
        machine=describe_machine(folder),
        events=Growth(
            of="events",
            fixed=f"{few_models:,} models, CPU time",
            sizes=[*events],
            lines=_lines(by_events),
        ),
        models=Growth(
            of="models",
            fixed=f"{some_events:,} events, CPU time",
            sizes=[*models],
            lines=_lines(by_models),
        ),
    )


def _lines(measured: list[dict[str, float]]) -> list[Line]:
    return [
        Line(what=what, seconds=[each[what] for each in measured])
        for what in measured[0]
    ]


async def _measured(folder: Path, events: int, models: int) -> dict[str, float]:
    """Return durations on a log of a size, s."""
    print_progress(f"measuring: {events:,} events of {models:,} models")
    path = folder / f"{events}-{models}.db"
    await fill_in_turns(path, events, models)
    async with await SQLiteEventStore.open(path) as store:
        whole = {
            "verify the log": await _once(lambda: verify(store)),
            "replay of all views": await _once(lambda: Views().replay(store)),
        }
    async with open_manager(path) as manager:
        await manager.as_of(events)  # makes the snapshots of the past
    opened = [await _once(lambda: _open(path)) for _ in range(ROUNDS)]
    async with open_manager(path) as manager:
        name = names(1)[0]
        asked = [max(int(events * share), 1) for share in SHARES]
        past = [partial(manager.as_of, at) for at in asked]
        change = [partial(manager.diff, at, events) for at in asked]
        return {
            **whole,
            "open": median(opened),
            "difference to a past position": await _slowest(change),
            "state at a past position": await _slowest(past),
            "best model of each role": await _median(lambda: _recommend(manager)),
            "status of all models": await _median(manager.all_statuses),
            "command, alone": await _median(lambda: manager.mark_used(name), 50),
        }


async def _open(path: Path) -> None:
    async with open_manager(path):
        pass


async def _recommend(manager: ModelManager) -> None:
    now = await manager.now()
    for role in ModelRole:
        now.recommend(role)


async def _once(run: Callable[[], Awaitable[object]]) -> float:
    started = process_time()
    await run()
    return process_time() - started


async def _median(run: Callable[[], Awaitable[object]], rounds: int = ROUNDS) -> float:
    return median([await _once(run) for _ in range(rounds)])


async def _slowest(runs: Sequence[Callable[[], Awaitable[object]]]) -> float:
    return max([await _median(run) for run in runs])


def main() -> None:
    """Measure, keep and draw."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth")
    parser.add_argument("--draw", action="store_true", help="draw the kept result")
    kept = DOCS / "growth.json"
    if not parser.parse_args().draw:
        place = Path("build")
        place.mkdir(exist_ok=True)
        with TemporaryDirectory(prefix="growth-", dir=place) as folder:
            reference = asyncio.run(measure(Path(folder)))
        kept.write_bytes(msgspec.json.format(msgspec.json.encode(reference)) + b"\n")
    reference = msgspec.json.decode(kept.read_bytes(), type=Reference)
    for name, growth in (("events", reference.events), ("models", reference.models)):
        (DOCS / f"growth-{name}.svg").write_text(draw(growth), "utf-8")


if __name__ == "__main__":
    main()
