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

_COLUMNS = (
    Column("ROLE"),
    Column("MODEL"),
    Column("NODE"),
    Column("WHY", gives_way=1),
)


def show_overview(
    screen: Screen, answers: Sequence[Recommendation], now: Now, *, nodes: bool = False
) -> None:
    """Write the first choice for each role; with ``nodes``, also its node."""
    rows = []
    for answer in answers:
        first = answer.chosen[0] if answer.chosen else None
        node = Piece(first.node if first else NOTHING)
        rows.append(
            Row(
                [
                    Piece(answer.role.value),
                    Piece(first.name if first else NOTHING, "bold"),
                    *([node] if nodes else []),
                    Piece(reasons_text(first, now) if first else _hint(answer)),
                ]
            )
        )
    columns = [each for each in _COLUMNS if nodes or each.header != "NODE"]
    screen.write_table(columns, rows)


def _hint(answer: Recommendation) -> str:
    return f"no model fits; herdbook suggest {answer.role}"


def show(
    screen: Screen,
    answer: Recommendation,
    registry: ModelRegistry,
    now: Now,
    *,
    nodes: bool = False,
) -> None:
    """Write the ranking for a role, then the models that do not fit.

    Args:
        screen: The output.
        answer: The ranking.
        registry: Known models.
        now: The current time.
        nodes: Whether to show the node of each model.
    """
    chosen = [
        _row(
            "use" if at == 0 else "then",
            candidate,
            reasons_text(candidate, now),
            nodes=nodes,
        )
        for at, candidate in enumerate(answer.chosen)
    ]
    passed_over = [
        _row(
            "not" if at == 0 else " ",
            candidate,
            reasons_text(candidate, now) + _remedy(candidate, registry),
            nodes=nodes,
        )
        for at, candidate in enumerate(answer.passed_over)
    ]
    node = [Column("")] if nodes else []
    columns = (Column(""), Column(""), *node, Column("", gives_way=1))
    screen.write_table(columns, [*chosen, *passed_over], headers=False)
    if not answer.chosen:
        role = answer.role
        screen.write(
            f"No model fits the {role} role. To find one: herdbook suggest {role}"
        )


def _row(lead: str, candidate: Candidate, why: str, *, nodes: bool) -> Row:
    style = "bold" if lead == "use" else ""
    node = [Piece(candidate.node)] if nodes else []
    return Row([Piece(lead, "dim"), Piece(candidate.name, style), *node, Piece(why)])


def _remedy(candidate: Candidate, registry: ModelRegistry) -> str:
    """Return how to pull a missing model, with its size."""
    if candidate.reasons != ("not present",):
        return ""
    found = registry.download_of(candidate.name)
    download = f", {bytes_text(found[0])}" if found else ""
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
