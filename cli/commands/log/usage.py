"""The verb ``usage``: requests, tokens, durations and errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, NamedTuple

import typer

from herdbook.cli.app import INSPECT, verb
from herdbook.cli.commands.log.filters import EXAMPLES
from herdbook.cli.errors import UsageError
from herdbook.cli.invocation import Invocation
from herdbook.cli.options import NoRefresh
from herdbook.cli.output import Column, Piece, Row
from herdbook.core import Usage, UsageDimension, UsageRow
from herdbook.core.fleet import queries
from herdbook.presentation import usage as texts


def _complete_dimension(incomplete: str) -> list[str]:
    """Return the dimensions that start with a text."""
    return [each.value for each in UsageDimension if each.startswith(incomplete)]


@verb("usage", INSPECT)
async def usage(
    invocation: Invocation,
    *,
    by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WHAT",
            help=f"Group by {', '.join(UsageDimension)}; default: model. Repeatable.",
            autocompletion=_complete_dimension,
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="WHEN", help=f"Only uses recorded since WHEN. {EXAMPLES}"),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(
            "--until",
            "--as-of",
            metavar="WHEN",
            help="Only uses recorded until WHEN.",
        ),
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    no_refresh: NoRefresh = False,
) -> None:
    """Show usage: requests, tokens, durations and errors."""
    if csv and invocation.json:
        raise UsageError("--csv and --json", "cannot be used together", "Choose one")
    parse = invocation.now.parse
    begin = None if since is None else parse(since)
    end = None if until is None else parse(until)
    refresh = not no_refresh and end is None
    async with invocation.reading(refresh=refresh, log_only=True) as fleet:
        found = await queries.usage(
            fleet, by or UsageDimension.MODEL, since=begin, until=end
        )
    screen = invocation.screen
    if invocation.json:
        screen.write_json(found)
    elif csv:
        screen.stream.write(await texts.csv_text(found))
    else:
        _show(invocation, found)


class _Figure(NamedTuple):
    """A column of figures, which is left out where the total has none.

    Attributes:
        header: Name of the column.
        gives_way: See ``Column``.
        text: Returns the figure of a row in words.
        has: Returns whether a total has the figure.
    """

    header: str
    gives_way: int
    text: Callable[[UsageRow], str]
    has: Callable[[UsageRow], object]


def _seconds(header: str, gives_way: int, name: str) -> _Figure:
    def seconds(row: UsageRow) -> float | None:
        value: float | None = getattr(row, name)
        return value

    return _Figure(
        header,
        gives_way,
        lambda row: texts.seconds_text(seconds(row)),
        lambda total: seconds(total) is not None,
    )


def _number(header: str, gives_way: int, name: str, *, always: bool = False) -> _Figure:
    return _Figure(
        header,
        gives_way,
        lambda row: texts.number_text(getattr(row, name)),
        lambda total: always or getattr(total, name),
    )


_FIGURES = (
    _number("REQUESTS", 0, "requests", always=True),
    _number("FAILED", 2, "failed"),
    _number("LEFT", 2, "client_left"),
    _number("OBSERVED", 1, "observed"),
    _number("TOKENS IN", 3, "prompt_tokens"),
    _number("TOKENS OUT", 3, "output_tokens"),
    _seconds("TIME P50", 4, "duration_p50_s"),
    _seconds("TIME P95", 4, "duration_p95_s"),
    _seconds("FIRST P50", 5, "first_token_p50_s"),
    _seconds("FIRST P95", 5, "first_token_p95_s"),
    _Figure(
        "TOKENS/S",
        6,
        lambda row: texts.rate_text(row.tokens_per_s),
        lambda total: total.tokens_per_s is not None,
    ),
)


def _show(invocation: Invocation, usage: Usage) -> None:
    screen = invocation.screen
    shown = [each for each in _FIGURES if each.has(usage.total)]
    columns = [
        *(Column(each.value.upper()) for each in usage.by),
        *(Column(each.header, each.gives_way, right=True) for each in shown),
    ]
    rows = []
    for row in usage.rows:
        first, *others = (texts.group_text(row, each) for each in usage.by)
        figures = (each.text(row) for each in shown)
        rows.append(Row([Piece(first, "bold"), *map(Piece, (*others, *figures))]))
    if rows:
        screen.write_table(columns, rows)
    screen.write(Piece(texts.summary_text(usage), "dim"))
