"""Verify a log: its events, its file and the snapshots of its views."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress

import msgspec

from herdbook.core import views
from herdbook.core.checks import archives
from herdbook.core.history import past
from herdbook.core.log.storage import Storage
from herdbook.core.models.names import is_canonical
from herdbook.events.errors import CorruptLogError
from herdbook.events.findings import Finding, Kind
from herdbook.events.store import Head
from herdbook.events.verify import Verification
from herdbook.events.verify import verify as verify_events


async def verify(storage: Storage, *, anchors: Collection[Head] = ()) -> Verification:
    """Verify a log, and its snapshots against a replay.

    Args:
        storage: The log; others may append to it meanwhile.
        anchors: Heads that were saved before; the log must still contain them.

    Raises:
        StoreError: The log cannot be read.
    """
    found = await verify_events(
        storage.store, anchors=anchors, is_canonical=is_canonical
    )
    try:
        more = await archives.check(storage)
    except CorruptLogError as error:
        more = [Finding(position=0, kind=Kind.ARCHIVE, message=str(error))]
    # The findings already name what cannot be replayed.
    with suppress(CorruptLogError):
        altered = await views.check(
            storage.store, storage.snapshots, await past.checks(storage)
        )
        more += [
            Finding(position=0, kind=Kind.SNAPSHOT, message=message)
            for message in altered
        ]
    return msgspec.structs.replace(found, findings=(*more, *found.findings))
