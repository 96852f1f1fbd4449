"""Settings of a manager: timeouts, retries and intervals."""

from __future__ import annotations

import msgspec


class ManagerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Timeouts, retries and intervals of a manager; all times are in seconds.

    Attributes:
        refresh_timeout_s: Timeout of a refresh from the server.
        stall_after_s: A pull without new data for this long is cancelled and started
            again. It must be less than 30 s, when the server restarts the download
            itself and discards partial data; a restart by the client keeps it
            (recorded from a real server).
        max_stalls: How often in a row a pull may stall without new data in between,
            before it fails.
        max_concurrent_pulls: Pulls that run at the same time; the others wait.
        silence_timeout_s: How long the server may be silent while no data is
            expected: it resolves the manifest, verifies a large layer, or loads.
        progress_every_s: Minimum time between two recorded progress events of a
            pull.
        progress_every_share: Minimum progress between two of them, as a share of the
            whole from 0 to 1. Both minimums apply.
        busy_retries: How often a load is retried when the server's queue is full.
        busy_wait_s: Wait before the first of these retries; doubled for each one.
        load_timeout_s: How long a loaded model may take to appear in the server's
            list of runners.
        unload_timeout_s: How long an unloaded model may take to disappear from that
            list; after that, the unload is reported as deferred.
        poll_every_s: Interval between two requests for the runners while waiting.
        log_poll_every_s: Interval between two reads of the log that follow an
            operation of another instance or look for requests to cancel one.
        reload_recorded_after_s: How long the server may take to load a loaded model
            until that is recorded as a reload, although its options do not show one.
        reconcile_every_s: Interval between two background refreshes; None refreshes
            only on demand and after operations.
        lost_wait_s: Wait before the next background refresh of a server that does not
            answer; doubled each time.
        lost_wait_max_s: Longest such wait.
        pinned_loads_per_hour: How often in an hour a pinned model that was evicted is
            loaded again in the background.
        pinned_idle_s: How long the models in memory must be unused, if they have no
            expiry, before a pinned model that was evicted may take their place.
        resume_pulls: Whether pulls that were interrupted by a crash are resumed when
            the manager opens.
        follow_node: Whether a new address of the node is recorded instead of refused.
            For sandboxes, whose port changes with every start.
        max_repeated_changes: How many changes of one kind to one model, made by
            others, are recorded within ten minutes. Further ones are held back and
            counted.
        snapshot_every: Save a snapshot of the views after this many events.
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
    log_poll_every_s: float = 0.5
    reload_recorded_after_s: float = 1.0
    reconcile_every_s: float | None = None
    lost_wait_s: float = 1.0
    lost_wait_max_s: float = 30.0
    pinned_loads_per_hour: int = 3
    pinned_idle_s: float = 1800.0
    resume_pulls: bool = False
    follow_node: bool = False
    max_repeated_changes: int = 30
    snapshot_every: int = 10_000
