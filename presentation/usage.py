"""Texts and tables about the use of models."""

from __future__ import annotations

import csv
import io
from typing import Final

from herdbook.core import Usage, UsageDimension, UsageRow
from herdbook.core.concurrency.time_slice import TimeSlice
from herdbook.presentation.wording import UNKNOWN, joined
from herdbook.projections.sentences import counted, duration_text

_UNNAMED: Final = {
    UsageDimension.CLIENT: "(not known)",
    UsageDimension.ROLE: "(no role)",
    UsageDimension.ENDPOINT: "(no request)",
    UsageDimension.FAILURE: "(no failure)",
}

_FORMULA: Final = ("=", "+", "-", "@")
"""Characters with which a formula of a spreadsheet begins."""

_FIGURES: Final = tuple(name for name in UsageRow.__struct_fields__ if name != "group")


def group_text(row: UsageRow, dimension: UsageDimension) -> str:
    """Return the value of a group in words."""
    value = row.group[dimension.value]
    if value is None:
        return _UNNAMED.get(dimension, UNKNOWN)
    if dimension is UsageDimension.HOUR and "T" in value:  # 2026-11-27T14Z
        return f"{value[:10]} {value[11:13]}:00 UTC"
    if dimension in {UsageDimension.OUTCOME, UsageDimension.ROLE}:
        return value.replace("_", " ")
    return value


def number_text(number: int) -> str:
    """Return a number: ``950``, ``12,345``, ``1.2 million``."""
    for size, word in ((10**9, "billion"), (10**6, "million")):
        if number >= size:
            return f"{number / size:.1f} {word}"
    return f"{number:,}"


def seconds_text(seconds: float | None) -> str:
    """Return a duration: ``85 ms``, ``3.1 s``, ``4 min``; a dash for an unknown one."""
    if seconds is None:
        return UNKNOWN
    if seconds < 0.9995:
        return f"{seconds * 1000:.{0 if seconds >= 0.01 else 1}f} ms"
    return duration_text(seconds)


def rate_text(tokens_per_s: float | None) -> str:
    """Return a number of tokens per second; a dash for an unknown one."""
    if tokens_per_s is None:
        return UNKNOWN
    return f"{tokens_per_s:.{0 if tokens_per_s >= 10 else 1}f}"


def disconnects_text(count: int) -> str:
    """Return how many requests ended because the client closed the connection."""
    return counted(count, "client disconnect")


def summary_text(usage: Usage) -> str:
    """Return the totals in words, with what is not among the requests."""
    total = usage.total
    parts = [
        counted(total.requests, "request"),
        f"{number_text(total.failed)} failed" if total.failed else "",
        disconnects_text(total.client_left) if total.client_left else "",
        f"{number_text(total.prompt_tokens + total.output_tokens)} tokens"
        if total.prompt_tokens or total.output_tokens
        else "",
        f"about {number_text(total.estimated_tokens)} more tokens not reported"
        if total.estimated_tokens
        else "",
        f"{counted(total.observed, 'use')} observed on the server"
        if total.observed
        else "",
        f"{counted(total.not_recorded, 'request')} not recorded"
        if total.not_recorded
        else "",
    ]
    return joined(parts)


async def csv_text(usage: Usage) -> str:
    """Return the rows as CSV (RFC 4180) with a header; unknown values are empty.

    A name that a spreadsheet would take for a formula begins with an apostrophe.
    """
    written, time_slice = io.StringIO(), TimeSlice()
    writer = csv.writer(written)
    writer.writerow([*(each.value for each in usage.by), *_FIGURES])
    for row in usage.rows:
        names = (_cell(value or "") for value in row.group.values())
        writer.writerow([*names, *(getattr(row, name) for name in _FIGURES)])
        await time_slice.checkpoint()
    return written.getvalue()


def _cell(text: str) -> str:
    """Return a name as a cell that no spreadsheet takes for a formula."""
    shown = _printable(text)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown


def _printable(text: str) -> str:
    """Replace characters that could control a terminal."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text)
