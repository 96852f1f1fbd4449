"""One model in full: what ``show`` tells of it, each fact with its source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from herdbook.cli.screen import Line, Piece, line
from herdbook.cli.states import state_piece
from herdbook.core import HistoryEntry, ModelState, ModelStatus, Moment
from herdbook.presentation import wording
from herdbook.presentation.times import Now
from herdbook.presentation.wording import NOTHING, SOURCES
from herdbook.projections.sentences import bytes_text, setting_text

_LABEL = 12


class Card:
    """A model's facts, as lines.

    Args:
        status: The model.
        moment: The moment that it is shown at.
        entries: Its history.
        now: The present.
    """

    def __init__(
        self,
        status: ModelStatus,
        moment: Moment,
        entries: Sequence[HistoryEntry],
        now: Now,
    ) -> None:
        self._status = status
        self._moment = moment
        self._entries = entries
        self._now = now

    def lines(self) -> Iterator[Line]:
        """Yield the lines."""
        yield self._headline()
        failure = self._status.last_failure
        if failure is not None:
            reason = wording.plain_failure(self._status.name, failure.message)
            what = wording.failed_word(failure.event)
            text = f"{what} failed {self._now.ago(failure.at)}: {reason}"
            yield self._fact("failure", text, "red")
        yield self._fact("weights", self._weights())
        yield self._fact("context", self._context())
        yield from self._abilities()
        yield self._fact("settings", self._settings())
        if self._status.runner is not None:
            yield self._fact("memory", self._memory())
        yield self._fact("used", self._used())
        yield line(Piece(f"Next: {self._next()}", "dim"))

    def _fact(self, label: str, text: str, style: str = "") -> Line:
        return line(Piece(f"  {label:<{_LABEL}}", "dim"), Piece(text, style))

    def _headline(self) -> Line:
        status = self._status
        since = f" since {self._now.clock(status.since)}" if status.since else ""
        why = next(
            (
                f" ({entry.sentence}; {wording.who_text(entry)})"
                for entry in self._entries
                if status.why and entry.position == status.why.position
            ),
            "",
        )
        stale = ""
        if status.stale_since is not None:
            stale = f", stale since {self._now.clock(status.stale_since)}"
        return line(
            Piece(status.name, "bold"),
            "   ",
            state_piece(status),
            f"{since}{why}{stale}",
        )

    def _weights(self) -> str:
        status = self._status
        if status.remote_host:
            return f"none here: a cloud model of {status.remote_host}"
        if not status.present:
            return NOTHING
        count = status.parameter_count
        kind = [
            wording.parameters_text(count) if count else "",
            status.quantization or "",
        ]
        size = None if status.size_bytes is None else bytes_text(status.size_bytes)
        parts = [
            (status.weights or "?")[:12],
            *filter(None, kind),
            size or "",
            self._sharing(),
        ]
        return ", ".join(filter(None, parts))

    def _sharing(self) -> str:
        if self._status.weights is None:
            return ""
        others = [
            other.name
            for other in self._moment.statuses()
            if other.weights == self._status.weights and other.name != self._status.name
        ]
        return f"shared with {', '.join(others) or 'nothing'}"

    def _context(self) -> str:
        status = self._status
        trained = wording.NOTHING
        if status.context_trained is not None and status.context_source is not None:
            source = SOURCES[status.context_source]
            trained = f"{status.context_trained:,} ({source})"
        configured = _number(status.context_configured)
        effect = _number(status.context_in_effect)
        return f"trained {trained}   configured {configured}   in effect {effect}"

    def _abilities(self) -> Iterator[Line]:
        known = self._moment.capabilities(self._status.name)
        can = [f"{name} ({SOURCES[c.source]})" for name, c in known.items() if c.value]
        not_ = [name for name, c in known.items() if not c.value]
        yield self._fact("can", "  ".join(can) or NOTHING)
        yield self._fact("does not", ", ".join(not_) or NOTHING)

    def _settings(self) -> str:
        status = self._status
        parts = []
        if "temperature" not in status.settings and status.temperature is not None:
            source = (
                SOURCES[status.temperature_source] if status.temperature_source else "?"
            )
            parts.append(f"temperature {status.temperature:g} ({source})")
        parts += [
            f"{name} {setting_text(value)} (configured)"
            for name, value in sorted(status.settings.items())
        ]
        return "   ".join(parts) or NOTHING

    def _memory(self) -> str:
        runner = self._status.runner
        assert runner is not None
        share = wording.share_text(runner.size_vram_bytes, runner.size_bytes)
        where = f"{share} on the GPU" if runner.size_vram_bytes else "on the CPU"
        size = bytes_text(runner.size_bytes)
        by = "" if runner.name == self._status.name else f", loaded as {runner.name}"
        return f"{size}, {where}{by}"

    def _used(self) -> str:
        status = self._status
        if not status.uses:
            return "never, as far as this log knows"
        times = wording.counted(status.uses, "time")
        return f"{times}, last {wording.used_text(status, self._now)}"

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
