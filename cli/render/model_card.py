"""The card of one model for ``show``: each detail with its source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from herdbook.cli.output import Line, Piece, line
from herdbook.cli.render.states import state_piece
from herdbook.core import HistoryEntry, ModelState, ModelStatus, ReadModel
from herdbook.presentation import facts, wording
from herdbook.presentation.times import Now
from herdbook.presentation.wording import NOTHING, SOURCES
from herdbook.projections.sentences import setting_text

_LABEL = 12


class Card:
    """The details of a model, as lines.

    Args:
        status: The model.
        models: All models, for shared weights and capabilities.
        entries: History of the model.
        now: The current time.
    """

    def __init__(
        self,
        status: ModelStatus,
        models: ReadModel,
        entries: Sequence[HistoryEntry],
        now: Now,
    ) -> None:
        self._status = status
        self._models = models
        self._entries = entries
        self._now = now

    def lines(self) -> Iterator[Line]:
        """Yield the lines."""
        yield self._headline()
        status = self._status
        failure = facts.failure_text(status, self._now)
        if failure:
            yield self._fact("failure", failure, "red")
        shared_with = facts.sharing(status, self._models.statuses())
        yield self._fact("weights", facts.weights_text(status, shared_with))
        yield self._fact("context", self._context())
        yield from self._abilities()
        yield self._fact("settings", self._settings())
        if status.runner is not None:
            memory = facts.memory_text(status.runner, status.name)
            yield self._fact("memory", memory)
        yield self._fact("used", facts.uses_text(status, self._now))
        yield line(Piece(f"Next: {self._next()}", "dim"))

    def _fact(self, label: str, text: str, style: str = "") -> Line:
        return line(Piece(f"  {label:<{_LABEL}}", "dim"), Piece(text, style))

    def _headline(self) -> Line:
        status = self._status
        since = facts.since_text(status, self._now)
        event = facts.state_event(status, self._entries)
        why = f" ({event.sentence}; {wording.who_text(event)})" if event else ""
        stale = ""
        if status.stale_since is not None:
            stale = f", stale since {self._now.clock(status.stale_since)}"
        return line(
            Piece(status.name, "bold"),
            "   ",
            state_piece(status),
            f" {since}{why}{stale}" if since else f"{why}{stale}",
        )

    def _context(self) -> str:
        status = self._status
        trained = wording.NOTHING
        known = wording.trained_context(status)
        if known is not None and status.context_source is not None:
            trained = f"{known:,} ({SOURCES[status.context_source]})"
        configured = _number(status.context_configured)
        if status.context_configured is None and status.context_default is not None:
            configured = f"{status.context_default:,} (model)"
        effect = _number(status.context_in_effect)
        return f"trained {trained}   configured {configured}   in effect {effect}"

    def _abilities(self) -> Iterator[Line]:
        known = self._models.capabilities(self._status.name)
        can = [f"{name} ({SOURCES[c.source]})" for name, c in known.items() if c.value]
        not_ = [name for name, c in known.items() if not c.value]
        yield self._fact("can", "  ".join(can) or NOTHING)
        yield self._fact("cannot", ", ".join(not_) or NOTHING)

    def _settings(self) -> str:
        status = self._status
        parts = []
        own = set(status.parameters) | set(status.settings)
        if "temperature" not in own and status.temperature is not None:
            source = (
                SOURCES[status.temperature_source] if status.temperature_source else "?"
            )
            parts.append(f"temperature {status.temperature:g} ({source})")
        parts += [
            f"{name} {setting_text(value)} (model)"
            for name, value in sorted(status.parameters.items())
            if name not in status.settings
        ]
        parts += [
            f"{name} {setting_text(value)} (configured)"
            for name, value in sorted(status.settings.items())
        ]
        return "   ".join(parts) or NOTHING

    def _next(self) -> str:
        name, state = self._status.name, self._status.state
        step = {
            ModelState.AVAILABLE: f"herdbook load {name}",
            ModelState.LOADED: f"herdbook unload {name}",
            ModelState.NOT_PRESENT: f"herdbook pull {name}",
        }.get(state, "")
        if state is ModelState.ERROR:
            step = f"herdbook {'load' if self._status.present else 'pull'} {name}"
        return wording.joined([f"herdbook history {name}", step])


def _number(value: int | None) -> str:
    return NOTHING if value is None else f"{value:,}"
