"""Replay: from the events of one stream to the state of its model.

Neither side caches: each run reads the stream from its file. The tuned peer also runs
without assertions (``python -O``), which makes a difference there, in a separate
interpreter.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from time import perf_counter

from benchmarks.dataset import EVENTS_PER_CYCLE, fill, names, stream
from benchmarks.measure import Row, at_least, interleave
from benchmarks.peer import PeerManager, default_peer, tuned_peer
from benchmarks.sizes import Sizes
from herdbook.events.sqlite.store import SQLiteEventStore
from herdbook.projections.status_view import StatusView

(NAME,) = names(1)


async def run(folder: Path, sizes: Sizes) -> list[Row]:
    """Measure the replay of one stream."""
    ours, tuned = folder / "replay.db", folder / "replay-tuned.db"
    default = folder / "replay-default.db"
    await fill(ours, sizes.replayed, models=1)
    for peer in (default_peer(default), tuned_peer(tuned)):
        peer.discover(NAME)
        peer.grow(NAME, sizes.replayed // EVENTS_PER_CYCLE)
        peer.close()

    async def replay_ours() -> float:
        return await _replay(ours)

    async def replay_default() -> float:
        return replay_peer(default_peer(default))

    async def replay_tuned() -> float:
        return await _replay_elsewhere(tuned)

    medians = await interleave(sizes.rounds, replay_ours, replay_default, replay_tuned)
    own, plain, best = (median * 1e3 for median in medians)
    what = f"replay, one stream of {sizes.replayed:,}"
    return [
        Row(
            what=what,
            unit="ms",
            ours=own,
            beside="eventsourcing",
            theirs=plain,
            goal=at_least(50),
        ),
        Row(
            what=what,
            unit="ms",
            ours=own,
            beside="eventsourcing, tuned, -O",
            theirs=best,
            goal=at_least(2),
        ),
    ]


async def _replay(path: Path) -> float:
    async with await SQLiteEventStore.open(path) as store:
        started = perf_counter()
        view = StatusView()
        async for event in store.read_stream(stream(NAME)):
            view.apply(event)
        status = view.get(stream(NAME))
        taken = perf_counter() - started
    assert status is not None
    assert status.uses > 0
    return taken


def replay_peer(peer: PeerManager) -> float:
    """Return the seconds of the peer."""
    started = perf_counter()
    uses = peer.uses(NAME)
    taken = perf_counter() - started
    assert uses > 0
    peer.close()
    return taken


async def _replay_elsewhere(path: Path) -> float:
    """Replay with the tuned peer without assertions; return the second duration."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-O",
        "-m",
        __name__,
        str(path),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    return float(out)


def main() -> None:
    """Replay twice and print the duration of the second replay, s."""
    path = Path(sys.argv[1])
    replay_peer(tuned_peer(path))
    print(replay_peer(tuned_peer(path)))


if __name__ == "__main__":
    main()
