"""Run the benchmarks and print one table: ``python -m benchmarks``."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TypeAlias

import msgspec

from benchmarks import results
from benchmarks.measure import Row, describe_machine, print_progress, table
from benchmarks.rows import (
    bench_append,
    bench_command,
    bench_gateway,
    bench_health,
    bench_http,
    bench_import,
    bench_memory,
    bench_open,
    bench_past,
    bench_postgres,
    bench_rebuild,
    bench_replay,
    bench_usage,
)
from benchmarks.sizes import QUICK, Sizes

Benchmark: TypeAlias = Callable[[Path, Sizes], Awaitable[list[Row]]]


async def _append(folder: Path, sizes: Sizes) -> list[Row]:
    return await bench_append.run(folder, events=sizes.rebuilt, rounds=sizes.rounds)


BENCHMARKS: dict[str, Benchmark] = {
    "append": _append,
    "command": bench_command.run,
    "postgres": bench_postgres.run,
    "replay": bench_replay.run,
    "rebuild": bench_rebuild.run,
    "open": bench_open.run,
    "past": bench_past.run,
    "health": bench_health.run,
    "usage": bench_usage.run,
    "memory": bench_memory.run,
    "import": bench_import.run,
    "http": bench_http.run,
    "gateway": bench_gateway.run,
}


def main() -> None:
    """Run the requested benchmarks and print the table."""
    asked = _parse()
    sizes = QUICK if asked.quick else Sizes()
    if asked.events:
        sizes = msgspec.structs.replace(sizes, opened=asked.events)
    started, at, load = perf_counter(), datetime.now(UTC), os.getloadavg()
    # Not in /tmp, which may be in memory.
    place = Path("build")
    place.mkdir(exist_ok=True)
    with TemporaryDirectory(prefix="bench-", dir=place) as folder:
        machine = describe_machine(Path(folder))
        rows = asyncio.run(_measure(asked.only or BENCHMARKS, sizes, Path(folder)))
    print(table(rows))
    result = results.Result(
        schema=results.SCHEMA,
        started=at,
        seconds=perf_counter() - started,
        commit=results.commit(),
        rounds=sizes.rounds,
        load=(load, os.getloadavg()),
        machine=machine,
        rows=results.figures(rows),
    )
    print(
        f"\nMedians of {result.rounds} interleaved runs, in {result.seconds:.0f} s. "
        "A ratio above 1: Herdbook is better.\n"
        f"Python {machine.python}, SQLite {machine.sqlite}, "
        f"{machine.processors} processors, load average {load[0]:.1f} before; "
        f"syncing a page takes {machine.sync_us:.0f} µs."
    )
    if asked.json:
        results.write(result, asked.json)
    elif not asked.quick:
        results.write(result, results.place(at))
        print(f"Kept in {results.place(at)}.")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, help="run only these")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, for a test")
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write the result to FILE, not to benchmarks/results/",
    )
    parser.add_argument(
        "--events",
        type=int,
        help="events of the opened log; default: 200,000",
    )
    return parser.parse_args()


async def _measure(only: Iterable[str], sizes: Sizes, folder: Path) -> list[Row]:
    rows: list[Row] = []
    for name in only:
        print_progress(f"measuring: {name}")
        place = folder / name
        place.mkdir()
        rows += await BENCHMARKS[name](place, sizes)
    return rows


if __name__ == "__main__":
    main()
