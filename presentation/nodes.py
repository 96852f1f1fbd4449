"""Nodes: their JSON structure, and short texts about them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from herdbook.core import ReadModel
from herdbook.events.facts import NodeSettings
from herdbook.events.instances import Holder
from herdbook.events.lifecycle import ModelState
from herdbook.presentation.times import Now
from herdbook.presentation.wording import disk_bytes
from herdbook.projections.sentences import bytes_text
from herdbook.projections.status import NodeStatus


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A node, with totals over its models.

    Attributes:
        name: Its name.
        url: Address of its server; empty if it is not known yet.
        server_version: Version of the server, as it reports it.
        reached: Whether the server answered the last request.
        since: When it started or stopped answering.
        message: The problem, if it does not answer.
        added_at: When a user added it; None for the first node of the log.
        removed_at: When a user removed it; None if it is managed.
        settings: How Herdbook uses it.
        models: Number of models.
        loaded: Number of loaded models.
        disk_bytes: Disk space of the models, bytes; shared weights count once.
        memory_bytes: Memory of the loaded models, bytes.
        reconciler: The instance that refreshes it periodically; None if there is none,
            or if a past state is shown.
    """

    name: str
    url: str
    server_version: str
    reached: bool
    since: datetime | None
    message: str
    added_at: datetime | None
    removed_at: datetime | None
    settings: NodeSettings
    models: int
    loaded: int
    disk_bytes: int
    memory_bytes: int
    reconciler: Holder | None = None


def node(models: ReadModel, reconcilers: Mapping[str, Holder] | None = None) -> Node:
    """Return the JSON structure of the node of a read model.

    Args:
        models: The read model.
        reconcilers: The instance that refreshes each node, by node.
    """
    status = models.node_status()
    records = [one for one in models.records() if one.present]
    return Node(
        name=status.name,
        url=status.url,
        server_version=status.server_version,
        reached=status.reached,
        since=status.since,
        message=status.message,
        added_at=status.added_at,
        removed_at=status.removed_at,
        settings=status.settings,
        models=len(records),
        loaded=sum(one.state is ModelState.LOADED for one in records),
        disk_bytes=disk_bytes(records),
        memory_bytes=models.memory_used(),
        reconciler=(reconcilers or {}).get(status.name),
    )


def reconciler_text(holder: Holder | None) -> str:
    """Return which process refreshes a node; empty if none does."""
    if holder is None:
        return ""
    if holder.process is None:
        return f"instance {holder.instance[:8]}"
    return f"process {holder.process} on {holder.host}"


def state_text(status: NodeStatus | Node, now: Now) -> str:
    """Return whether a node answers, and whether it is drained or removed."""
    if status.removed_at is not None:
        return f"removed {now.ago(status.removed_at)}"
    if status.reached:
        answers = "connected"
    elif status.since is None:
        answers = "never connected"
    else:
        answers = f"no answer since {now.clock(status.since)}"
    return f"{answers}, drained" if status.settings.drained else answers


def settings_rows(settings: NodeSettings) -> list[tuple[str, str]]:
    """Return the settings of a node that differ from the defaults, as texts."""
    rows = [
        ("key_env", settings.key_env),
        *((f"tags.{key}", value) for key, value in sorted(settings.tags.items())),
        ("weight", "" if settings.weight == 1 else f"{settings.weight:g}"),
        ("models", " ".join(settings.models)),
        ("prefer", " ".join(settings.prefer)),
        (
            "max_model",
            ""
            if settings.max_model_bytes is None
            else bytes_text(settings.max_model_bytes),
        ),
        ("drained", "yes" if settings.drained else ""),
    ]
    return [(name, text) for name, text in rows if text]


def settings_text(settings: NodeSettings) -> str:
    """Return the settings that differ from the defaults, without ``drained``."""
    return ", ".join(
        f"{name.removeprefix('tags.')} {text}"
        for name, text in settings_rows(settings)
        if name != "drained"
    )
