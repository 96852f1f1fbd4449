"""What long work on the models of one node is done with."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from herdbook.core.clock import Clock
from herdbook.core.concurrency.work_tracker import WorkTracker
from herdbook.core.reconcile.reconciler import Reconciler
from herdbook.core.repository import ModelRepository
from herdbook.core.settings import ManagerSettings

if TYPE_CHECKING:
    from herdbook.core.ollama.client import OllamaClient


class OperationContext(NamedTuple):
    """What pulls and loads share.

    Attributes:
        repository: Where what happens is recorded.
        client: The server.
        reconciler: Looks at the server.
        changes: Which models commands are changing at the server.
        instance: This instance of Herdbook, as the log names who is at work.
        clock: What time it is.
        settings: How patient and how busy to be.
    """

    repository: ModelRepository
    client: OllamaClient
    reconciler: Reconciler
    changes: WorkTracker
    instance: str
    clock: Clock
    settings: ManagerSettings
