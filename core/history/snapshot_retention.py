"""Which snapshots of the past to keep: fewer of them, the older they are.

Pure functions of the kept snapshots and the length of the log. A snapshot has all views
at one position. The past at any position is the last snapshot before it, and the events
in between.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from herdbook.events.snapshots import KeptView

SPACING: Final = 2048
"""Events between two snapshots in the recent part of a log, a power of two.

Folding them takes 10 to 20 ms, and loading the views of 1,000 models takes 10 ms, so
that a question about the past takes less than 50 ms. The views of 1,000 models take
0.2 MB, about 120 bytes an event, where an event itself takes 440 bytes.
"""

RECENT: Final = 1 << 20
"""Age in events up to which the snapshots have this spacing.

It is doubled up to twice this age, doubled again up to four times, and so on. So each
doubling of a log adds half as many snapshots as the first million events have (256).
"""

MOST_BYTES: Final = 128 << 20
"""Size of all snapshots of a log, bytes; the spacing is doubled until they fit.

That is enough for the usual spacing of a million events of 1,000 models, and about a
quarter of the size of such a log.
"""


def spacing(age: int, scale: int = 1) -> int:
    """Return the number of events between two snapshots.

    Args:
        age: Number of events after the snapshot.
        scale: Factor for the size of the snapshots, a power of two.
    """
    return (SPACING * scale) << (max(age - 1, 0) // RECENT).bit_length()


def scale_of(snapshots: Sequence[KeptView], head: int) -> int:
    """Return the factor of the spacing with which all snapshots fit their bound.

    Args:
        snapshots: The present snapshots, of which the mean size is taken.
        head: Position of the last event of the log.
    """
    size = sum(snapshot.size for snapshot in snapshots) // max(len(snapshots), 1)
    scale = 1
    while size * _count(head, scale) > MOST_BYTES and scale < head:
        scale *= 2
    return scale


def _count(head: int, scale: int) -> int:
    """Return the number of snapshots of the whole log."""
    count, age, end = 0, 0, RECENT
    while age < head:
        end = min(end, head)
        count += (end - age) // spacing(end, scale)
        age, end = end, 2 * end
    return count


def is_wanted(
    snapshots: Sequence[KeptView], position: int, head: int, *, scale: int
) -> bool:
    """Return whether a snapshot at a position would close a gap."""
    width = spacing(head - position, scale)
    slot = position // width
    return slot > 0 and all(
        snapshot.position // width != slot for snapshot in snapshots
    )


def surplus(snapshots: Sequence[KeptView], head: int, *, scale: int) -> list[KeptView]:
    """Return the snapshots to delete, by position.

    Args:
        snapshots: The present snapshots, by position.
        head: Position of the last event of the log.
        scale: Factor of the spacing.
    """
    kept = list(_thinned(snapshots, head, scale))
    # The mean size is an estimate: older snapshots are smaller.
    while sum(snapshot.size for snapshot in kept) > MOST_BYTES and len(kept) > 1:
        scale *= 2
        kept = list(_thinned(snapshots, head, scale))
    positions = {snapshot.position for snapshot in kept}
    return [snapshot for snapshot in snapshots if snapshot.position not in positions]


def _thinned(
    snapshots: Sequence[KeptView], head: int, scale: int
) -> Iterator[KeptView]:
    """Yield the first one of each slot: widths are powers of two, so slots nest."""
    last = 0
    for snapshot in snapshots:
        width = spacing(head - snapshot.position, scale)
        if snapshot.position // width > last // width:
            last = snapshot.position
            yield snapshot
