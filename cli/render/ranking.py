"""Recommendations for a role, and models to pull, with reasons."""

from __future__ import annotations

from collections.abc import Sequence

from herdbook.cli.output import Column, Piece, Row, Screen
from herdbook.core import (
    Candidate,
    ModelRegistry,
    Recommendation,
    Suggestion,
)
from herdbook.presentation.times import Now
from herdbook.presentation.wording import NOTHING, reasons_text
from herdbook.projections.sentences import bytes_text

_COLUMNS = (Column("ROLE"), Column("MODEL"), Column("WHY", gives_way=1))


def show_overview(screen: Screen, answers: Sequence[Recommendation], now: Now) -> None:
    """Write the first choice for each role."""
    rows = []
    for answer in answers:
        first = answer.chosen[0] if answer.chosen else None
        rows.append(
            Row(
                [
                    Piece(answer.role.value),
                    Piece(first.name if first else NOTHING, "bold"),
                    Piece(reasons_text(first, now) if first else _hint(answer)),
                ]
            )
        )
    screen.write_table(_COLUMNS, rows)


def _hint(answer: Recommendation) -> str:
    return f"no model fits; herdbook suggest {answer.role}"


def show(
    screen: Screen, answer: Recommendation, registry: ModelRegistry, now: Now
) -> None:
    """Write the ranking for a role, then the models that do not fit."""
    chosen = [
        _row("use" if at == 0 else "then", candidate, reasons_text(candidate, now))
        for at, candidate in enumerate(answer.chosen)
    ]
    passed_over = [
        _row(
            "not" if at == 0 else " ",
            candidate,
            reasons_text(candidate, now) + _remedy(candidate, registry),
        )
        for at, candidate in enumerate(answer.passed_over)
    ]
    columns = (Column(""), Column(""), Column("", gives_way=1))
    screen.write_table(columns, [*chosen, *passed_over], headers=False)
    if not answer.chosen:
        role = answer.role
        screen.write(f"No model fits {role}. To find one: herdbook suggest {role}")


def _row(lead: str, candidate: Candidate, why: str) -> Row:
    style = "bold" if lead == "use" else ""
    return Row([Piece(lead, "dim"), Piece(candidate.name, style), Piece(why)])


def _remedy(candidate: Candidate, registry: ModelRegistry) -> str:
    """Return how to pull a missing model, with its size."""
    if candidate.reasons != ("not present",):
        return ""
    known = registry.find(candidate.name)
    size = known.download_bytes if known and known.is_about(candidate.name) else None
    download = f", {bytes_text(size)}" if size else ""
    return f" (herdbook pull {candidate.name}{download})"


def show_suggestions(
    screen: Screen, suggestions: Sequence[Suggestion], role: str
) -> None:
    """Write the models to pull for a role."""
    if not suggestions:
        screen.write(f"The catalogue has no other model for {role} that fits.")
        return
    rows = [
        Row(
            [
                Piece(f"herdbook pull {each.pull}"),
                Piece(_size(each.model.download_bytes)),
                Piece(each.reason),
            ]
        )
        for each in suggestions
    ]
    columns = (Column("COMMAND"), Column("SIZE", right=True), Column("WHY", 1))
    screen.write_table(columns, rows)


def _size(size: int | None) -> str:
    return "?" if size is None else bytes_text(size)
