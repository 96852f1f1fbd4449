"""Completion for the shell: names in the log, roles, event types and files."""

from __future__ import annotations

import asyncio
import glob

from herdbook.cli.invocation import Invocation
from herdbook.core import HerdbookError, ModelRole, views
from herdbook.core.clock import SystemClock
from herdbook.core.log.location import LogLocation
from herdbook.core.log.storage import Storage, log_exists
from herdbook.events.facts import FACTS
from herdbook.events.streams import model_stream, node_stream
from herdbook.projections.status_view import StatusView


def complete_file(incomplete: str) -> list[str]:
    """Return the files and directories whose paths start with a text."""
    return sorted(glob.glob(f"{glob.escape(incomplete)}*"))  # noqa: PTH207 - keeps ./


def complete_model(incomplete: str) -> list[str]:
    """Return the names of models in the log that start with a text."""
    names = {model.name for model in _status().records()}
    return sorted(name for name in names if name.startswith(incomplete))


def complete_node(incomplete: str) -> list[str]:
    """Return the names of nodes in the log that start with a text."""
    names = [node.name for node in _status().nodes()]
    return sorted(name for name in names if name.startswith(incomplete))


def complete_stream(incomplete: str) -> list[str]:
    """Return the streams of the log that start with a text."""
    status = _status()
    streams = [model_stream(one.node, one.name) for one in status.records()]
    streams += [node_stream(node.name) for node in status.nodes()]
    return sorted(name for name in streams if name.startswith(incomplete))


def _status() -> StatusView:
    try:
        return asyncio.run(_read_status(Invocation().log))
    except HerdbookError:
        return StatusView()  # an error would garble the shell's prompt


async def _read_status(log: LogLocation) -> StatusView:
    """Return the status at the end of the log, from its snapshot if it has one."""
    if not await log_exists(log):
        return StatusView()
    async with Storage.open(log, SystemClock(), reading=True) as storage:
        return (await views.restore(storage.store, storage.snapshots)).status


def complete_role(incomplete: str) -> list[str]:
    """Return the roles that start with a text."""
    return [role.value for role in ModelRole if role.value.startswith(incomplete)]


def complete_type(incomplete: str) -> list[str]:
    """Return the event types that start with a text."""
    return [f.__name__ for f in FACTS if f.__name__.startswith(incomplete)]
