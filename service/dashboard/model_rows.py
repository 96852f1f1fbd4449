"""A model as a row of a table: its texts, its work in progress and its buttons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from markupsafe import Markup

from herdbook.core import (
    Activity,
    ModelStatus,
    PullProgress,
    RunningOperation,
)
from herdbook.presentation import facts, wording
from herdbook.presentation.remedies import remedy_of
from herdbook.presentation.times import Now
from herdbook.projections.status import Work
from herdbook.service.dashboard.actions.buttons import Button, buttons_for
from herdbook.service.dashboard.charts.memory import (
    progress_bar,
)
from herdbook.service.dashboard.page_request import PageRequest


class Progressing(NamedTuple):
    """Work in progress on a model.

    Attributes:
        verb: The activity.
        bar: Its progress as a bar; empty if it is not known.
        figures: The same in numbers, with rate and time left.
        asked: Who started it, and when.
        since: When it started.
    """

    verb: str
    bar: Markup
    figures: str
    asked: str
    since: datetime


class Row(NamedTuple):
    """A model in the table.

    Attributes:
        status: The status.
        node: Name of its node, if there are several; otherwise empty.
        state: The state, as text.
        size: The size.
        context: The context.
        can: The notable capabilities.
        memory: The memory in use, if it is loaded.
        expiry: When keep-alive ends, as text.
        expires_at: The same as a time.
        used: The last use.
        twin: An earlier model in the table with the same weights.
        works: Work in progress.
        failure: The last failure.
        failed_at: When it happened.
        remedy: Its remedy.
        buttons: The possible actions, most likely first.
    """

    status: ModelStatus
    node: str
    state: str
    size: str
    context: str
    can: str
    memory: str
    expiry: str
    expires_at: datetime | None
    used: str
    twin: str | None
    works: list[Progressing]
    failure: str
    failed_at: datetime | None
    remedy: str
    buttons: list[Button]


def row_of(
    page: PageRequest,
    status: ModelStatus,
    works: Mapping[tuple[str, str], RunningOperation],
    twin: str | None = None,
) -> Row:
    """Return a row of the table."""
    failed, remedy = failed_texts(status, page.now)
    runner = status.runner
    models = page.of(status.node) if page.several else page.read_model
    can = models.capabilities(status.name)
    work = works.get((status.node, status.name))
    return Row(
        node=status.node if page.several else "",
        status=status,
        state=wording.state_text(status),
        size=wording.size_text(status),
        context=wording.context_text(status, page.service.fleet.registry),
        can=wording.capabilities_text(n for n, known in can.items() if known.value),
        memory=facts.memory_text(runner, status.name) if runner else "",
        expiry=facts.expiry_text(runner, page.now) if runner else "",
        expires_at=runner.expires_at if runner else None,
        used=wording.used_text(status, page.now),
        twin=twin,
        works=progressing(status, work, page.now),
        failure=failed,
        failed_at=_failed_at(status),
        remedy=remedy,
        buttons=buttons_for(page, status, work),
    )


def _failed_at(status: ModelStatus) -> datetime | None:
    if facts.is_interrupted(status):
        return status.since
    return status.last_failure.at if status.last_failure else None


def failed_texts(status: ModelStatus, now: Now) -> tuple[str, str]:
    """Return the last failure and its remedy, without full stops."""
    failure = status.last_failure
    if facts.is_interrupted(status) and status.since is not None:
        remedy = "Pull it again to resume"
        return f"pull interrupted {now.ago(status.since)}", remedy
    failed = facts.failure_text(status, now)
    if failure is None or not failed:
        return "", ""
    remedy = remedy_of(failure.kind, status.name)
    # An old message ends with the remedy of its time, which may be the same.
    return failed.removesuffix(".").removesuffix(remedy).rstrip(". "), remedy


def progressing(
    status: ModelStatus, work: RunningOperation | None, now: Now
) -> list[Progressing]:
    """Return the work in progress on a model: from this service, else from the log."""
    own = [_own(work, now)] if work is not None else []
    recorded: Sequence[Work | None] = (status.work, status.update)
    return own + [
        _recorded(one, now)
        for one in recorded
        if one is not None and (work is None or one.activity is not work.activity)
    ]


def _own(work: RunningOperation, now: Now) -> Progressing:
    asked = f"requested by {work.actor}, {now.ago(work.since)}"
    if work.waiting:
        return Progressing(work.activity, Markup(""), "queued", asked, work.since)
    return _progress(work.activity, work.progress, asked, work.since)


def _recorded(work: Work, now: Now) -> Progressing:
    asked = f"requested by {work.actor}, {now.ago(work.since)}"
    if work.cancelled_by is not None:
        asked += f"; cancellation requested by {work.cancelled_by}"
    progress = None
    if work.completed_bytes is not None:
        progress = PullProgress.recorded(work.completed_bytes, work.total_bytes)
    return _progress(work.activity, progress, asked, work.since)


def _progress(
    activity: Activity, progress: PullProgress | None, asked: str, since: datetime
) -> Progressing:
    if progress is None:
        return Progressing(activity, Markup(""), "in progress", asked, since)
    total = progress.total_bytes
    if not total:
        return Progressing(
            activity, Markup(""), progress.status or "in progress", asked, since
        )
    completed = progress.completed_bytes
    figures = wording.joined(
        [
            f"{wording.percent(completed, total)}%",
            wording.of_text(completed, total),
            wording.rate_text(progress.rate_bytes_s),
            wording.left_text(progress.eta_s),
            progress.status if progress.rate_bytes_s is None else "",
        ]
    )
    return Progressing(activity, progress_bar(completed, total), figures, asked, since)
