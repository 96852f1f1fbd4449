"""Completion for the shell: names in the log, roles, event types and files."""

from __future__ import annotations

import asyncio
import glob

from herdbook.cli.invocation import Invocation
from herdbook.core import HerdbookError, ModelRole
from herdbook.core.clock import SystemClock
from herdbook.core.log.location import LogLocation
from herdbook.core.log.storage import Storage, log_exists
from herdbook.events.facts import FACTS
from herdbook.events.streams import MODEL_PREFIX, NODE_PREFIX, model_of, node_of


def complete_file(incomplete: str) -> list[str]:
    """Return the files and directories whose paths start with a text."""
    return sorted(glob.glob(f"{glob.escape(incomplete)}*"))  # noqa: PTH207 - keeps ./


def complete_model(incomplete: str) -> list[str]:
    """Return the names of models in the log that start with a text."""
    keys = map(model_of, _streams(MODEL_PREFIX))
    return sorted({key.name for key in keys if key and key.name.startswith(incomplete)})


def complete_node(incomplete: str) -> list[str]:
    """Return the names of nodes in the log that start with a text."""
    names = map(node_of, _streams(NODE_PREFIX))
    return sorted({name for name in names if name and name.startswith(incomplete)})


def complete_stream(incomplete: str) -> list[str]:
    """Return the streams of the log that start with a text."""
    return sorted(_streams(incomplete))


def _streams(prefix: str) -> set[str]:
    try:
        return asyncio.run(_read_streams(Invocation().log, prefix))
    except HerdbookError:
        return set()  # an error would garble the shell's prompt


async def _read_streams(log: LogLocation, prefix: str) -> set[str]:
    if not await log_exists(log):
        return set()
    async with Storage.open(log, SystemClock()) as storage:
        events = storage.store.read_all(stream_prefix=prefix)
        return {event.stream async for event in events}


def complete_role(incomplete: str) -> list[str]:
    """Return the roles that start with a text."""
    return [role.value for role in ModelRole if role.value.startswith(incomplete)]


def complete_type(incomplete: str) -> list[str]:
    """Return the event types that start with a text."""
    return [f.__name__ for f in FACTS if f.__name__.startswith(incomplete)]
