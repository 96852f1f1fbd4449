"""Record the uses of models that a gateway relayed to the server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager

from herdbook.core.actor import no_operation
from herdbook.core.errors import InvalidNameError, WrongExpectedVersionError
from herdbook.core.history.read_model import ReadModel
from herdbook.core.reconcile.reconciler import Reconciler
from herdbook.core.reconcile.use_watch import RelayedUses
from herdbook.core.repository import ATTEMPTS, ModelRepository
from herdbook.events.facts import (
    ModelUsed,
    Setting,
    UseFailed,
    UseOutcome,
    UsesNotRecorded,
)
from herdbook.events.recorded import Cause
from herdbook.projections.status import ModelStatus


class Uses:
    """The uses of the models of one server.

    Args:
        repository: Where they are recorded.
        reconciler: Finds the changes of the server that clients caused.
        latest: Returns the newest read model without reading the log.
        settings: Returns the settings of a model by its name, likewise. They must not
            be changed. Raises ``InvalidNameError``.

    Attributes:
        latest: The same function.
        settings: The same function.
    """

    def __init__(
        self,
        repository: ModelRepository,
        reconciler: Reconciler,
        latest: Callable[[], ReadModel],
        settings: Callable[[str], Mapping[str, Setting]],
    ) -> None:
        self._repository = repository
        self._reconciler = reconciler
        self.latest = latest
        self.settings = settings

    def status(self, name: str) -> ModelStatus | None:
        """Return the status of a model, as the log had it last.

        Args:
            name: A name as clients write it.

        Returns:
            The status with the canonical name; None if the name is not valid.
        """
        try:
            return self.latest().status(name)
        except InvalidNameError:
            return None

    def relaying(self, relayed: RelayedUses) -> AbstractAsyncContextManager[None]:
        """Let a gateway record the uses that it relays, while the block runs.

        They move the expiry of runners like other uses, and are not observed again.

        Args:
            relayed: The uses that the gateway has not recorded yet.
        """
        return self._reconciler.uses.relaying(relayed)

    async def refresh(self, actors: Mapping[str, str]) -> None:
        """Refresh, and record the changes of some models with their actors.

        Args:
            actors: Who changed a model, by its canonical name.

        Raises:
            OllamaError: The server does not answer; the node is recorded as lost.
            StoreError: The log cannot be read or written.
        """
        await self._reconciler.refresh(actors=actors)

    async def record(
        self, name: str, fact: ModelUsed | UseFailed, *, actor: str
    ) -> int | None:
        """Record a use.

        Args:
            name: Canonical name of the model.
            fact: The use.
            actor: Who used it.

        Returns:
            Position of its event. None if it was not recorded, because the server does
            not have the model.

        Raises:
            IllegalTransitionError: The model cannot have been used in its state.
            StoreError: The log cannot be written.
        """

        def decide(status: ModelStatus | None) -> tuple[ModelUsed | UseFailed, ...]:
            return (fact,) if status is not None and status.present else ()

        with no_operation():  # the refresh or unload that waits for this is another one
            recorded = await self._repository.decide(
                name, decide, cause=Cause.COMMAND, actor=actor
            )
        if recorded and fact.outcome is not UseOutcome.COMPLETED:
            self._reconciler.uses.cut_off(name, recorded[-1].occurred_at)
        return recorded[-1].position if recorded else None

    async def record_missing(self, fact: UsesNotRecorded) -> None:
        """Record that uses are missing in the log.

        Raises:
            StoreError: The log cannot be written.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await self._repository.record_node(fact, cause=Cause.OBSERVED)
            except WrongExpectedVersionError:
                if attempt == ATTEMPTS:
                    raise
                await self._repository.catch_up()
            else:
                return
