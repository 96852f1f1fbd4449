"""What a manager can be told about how to go about its work."""

from __future__ import annotations

import msgspec


class ManagerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How patient and how busy a manager is.

    Attributes:
        refresh_timeout_s: Seconds that a look at the server may take.
        stall_after_s: Seconds without a byte after which a pull is cancelled and
            begun again. The server's own cure comes at 30 s and throws away what
            the parts had; an earlier one keeps it (recorded from a real server).
        max_stalls: How often in a row a pull may stall without a new byte in between;
            one that comes again is none.
        max_concurrent_pulls: How many pulls run at the same time; the others wait.
        silence_timeout_s: Seconds that the server may be silent while no bytes are
            due: it asks for the manifest, verifies a big layer, or loads.
        progress_every_s: Progress is recorded when so many seconds and
            ``progress_every_share`` have passed, whichever is later.
        progress_every_share: Share of the whole, 0 to 1.
        busy_retries: How often a load is asked for again when the server's queue is
            full.
        busy_wait_s: Seconds before the first of them; doubled each time.
        load_timeout_s: Seconds in which a loaded model shows among the runners.
        unload_timeout_s: Seconds in which an unloaded one disappears there; later
            it is reported as deferred.
        poll_every_s: Seconds between two looks at the runners while waiting.
        reconcile_every_s: Seconds between two looks of the background reconciler;
            None for looks on demand and after operations alone.
        lost_wait_s: Seconds until the background reconciler looks again at a server
            that it found lost; doubled with each look that finds it lost still.
        lost_wait_max_s: Seconds that it waits at most then.
        pinned_loads_per_hour: How often an hour the background reconciler loads a
            pinned model again that was evicted.
        resume_pulls: Whether pulls that recovery finds interrupted go on at once.
        follow_node: Whether a node that is asked for at another address than the log
            has is recorded as moved, instead of refused. For sandboxes, whose port
            changes with every start.
        max_repeated_changes: How many changes of one kind that others made to one model
            are recorded within ten minutes as they are seen; of more, some are left
            out and counted.
        snapshot_every: Events after which snapshots of the views are kept.
    """

    refresh_timeout_s: float = 10.0
    stall_after_s: float = 20.0
    max_stalls: int = 5
    max_concurrent_pulls: int = 2
    silence_timeout_s: float = 3600.0
    progress_every_s: float = 10.0
    progress_every_share: float = 0.05
    busy_retries: int = 5
    busy_wait_s: float = 0.5
    load_timeout_s: float = 5.0
    unload_timeout_s: float = 5.0
    poll_every_s: float = 0.1
    reconcile_every_s: float | None = None
    lost_wait_s: float = 1.0
    lost_wait_max_s: float = 30.0
    pinned_loads_per_hour: int = 3
    resume_pulls: bool = False
    follow_node: bool = False
    max_repeated_changes: int = 30
    snapshot_every: int = 10_000
