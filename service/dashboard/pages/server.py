"""The page of the server: connection, loaded models, diagnosis, head of the log."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from litestar import Response, get, post

from herdbook.core import (
    Diagnosis,
    HistoryFilter,
    Level,
    ModelManager,
    ModelStatus,
    NodeStatus,
    Runner,
)
from herdbook.core.concurrency.supervisor import TaskStatus
from herdbook.core.diagnosis import diagnosis
from herdbook.core.errors import NodeUnreachableError
from herdbook.core.operations.costs import free_disk, models_folder
from herdbook.core.upkeep.recurring import UpkeepStatus
from herdbook.presentation import facts, wording
from herdbook.presentation.costs import free_text
from herdbook.presentation.loaded_models import last_used
from herdbook.presentation.times import Now
from herdbook.projections.sentences import counted
from herdbook.projections.status import Load
from herdbook.service.auth.tokens import Role
from herdbook.service.context import service_of
from herdbook.service.dashboard.charts.colours import Colours
from herdbook.service.dashboard.charts.memory import (
    memory_bar,
    memory_legend,
    runners_of,
)
from herdbook.service.dashboard.layout import redirect, render
from herdbook.service.dashboard.level_charts import SPANS, level_charts, span_of
from herdbook.service.dashboard.links import joined_link
from herdbook.service.dashboard.page_request import DONE, NODE, NOTE, PageRequest, visit
from herdbook.service.http.request import AnyRequest
from herdbook.service.middleware import require
from herdbook.service.operations.operation import Kind, OperationRequest, OperationState

ASKED_EVERY: Final = timedelta(seconds=20)
"""Maximum age of a diagnosis, which requests the details of every model."""

_KEPT: Final = "examined"
_SIGNS: Final = {
    Level.OK: "●",
    Level.NOTICE: "◐",
    Level.WARNING: "▲",
    Level.PROBLEM: "▲",
}


class Running(NamedTuple):
    """A runner, with the models of its weights, its load and its last use."""

    runner: Runner
    names: list[str]
    memory: str
    expiry: str
    context: str
    load: Load | None
    loaded: str
    used: str
    used_at: datetime | None


class Found(NamedTuple):
    """A finding of a check."""

    level: str
    sign: str
    check: str
    what: str
    remedy: str


class Task(NamedTuple):
    """A background task of the service."""

    name: str
    up: bool
    state: str
    failure: str


class Examined:
    """The newest diagnosis of a node, shared by all requests; one runs at a time."""

    def __init__(self) -> None:
        self._asking = asyncio.Lock()
        self._found: list[Diagnosis] = []
        self.at: datetime | None = None

    async def read(self, manager: ModelManager, now: datetime) -> list[Diagnosis]:
        """Return the findings, checked again if they are too old."""
        async with self._asking:
            if self.at is None or not timedelta() <= now - self.at < ASKED_EVERY:
                self._found, self.at = await manager.doctor(), now
            return self._found

    def forget(self) -> None:
        """Make the next request check again."""
        self.at = None


@get("/node", include_in_schema=False)
async def node_page(request: AnyRequest) -> Response[str]:
    """Show the server and the log."""
    page = await visit(request)
    if page.several and not page.node:
        return redirect(page.links.to("/nodes"))
    service, node = page.service, page.read_model.node_status()
    statuses = page.read_model.statuses()
    runners = runners_of(statuses)
    colours = Colours(statuses)
    examined = _examined(request, node.name)
    found = []
    if not page.past:
        if node.reached:  # otherwise each check would wait for the server
            found = await examined.read(page.manager, page.present.at)
        else:
            found = [_unreached(node, page.manager.server_notice)]
    span = span_of(request.query_params.get("span", ""))
    head = await service.manager.head()
    present = [status for status in statuses if status.present]
    return await render(
        page,
        "server.html",
        title="Server",
        node=node,
        words=wording.node_text(node, page.now),
        since=page.now.clock(node.since) if node.since else wording.NOTHING,
        runners=[_running(page, one, statuses) for one in runners],
        memory=wording.memory_text(statuses),
        memory_bar=memory_bar(runners, colours),
        notice="" if page.past else page.manager.server_notice,
        memory_legend=memory_legend(runners, colours),
        models=counted(len(present), "model"),
        disk=wording.disk_text(present).removeprefix(", "),
        free=_free(page),
        charts=await level_charts(page, span),
        spans=[
            (name, page.links.to("/node", span=name, node=page.node), name == span)
            for name in SPANS
        ],
        free_off=page.off(Role.ADMIN),
        found=[_finding(each) for each in found],
        summary=wording.problems_text(found),
        asked_at=examined.at,
        asked=page.present.ago(examined.at) if examined.at and node.reached else "",
        head=head,
        lag=await service.manager.lag(),
        readers=service.live.readers,
        tasks=[
            *(_task(one, page.now) for one in service.background_tasks()),
            *(
                _upkeep(task, status, page.now)
                for task, status in zip(
                    service.upkeep.tasks(), service.upkeep.statuses(), strict=True
                )
            ),
        ],
    )


@post("/node/refresh", include_in_schema=False)
async def refresh_now(request: AnyRequest) -> Response[str]:
    """Refresh from the server, and record the changes."""
    principal, service = require(request, Role.OPERATE), service_of(request)
    page = await visit(request)
    wanted = OperationRequest(kind=Kind.REFRESH, node=page.read_model.node)
    operation = await service.operations.start(wanted, principal)
    if operation.task is not None:
        await asyncio.wait([operation.task], timeout=10)
    _examined(request, page.read_model.node).forget()
    chosen = HistoryFilter(correlation_id=operation.id)
    found = await service.manager.read_log(
        after=operation.after, limit=1, newest_first=True, chosen=chosen
    )
    done = found.events[0].position if found.events else None
    note = ""
    if done is None and not operation.running:
        failed = operation.state is OperationState.FAILED
        note = "refresh-failed" if failed else "refreshed"
    return redirect(joined_link("/node", {NODE: page.node, DONE: done, NOTE: note}))


def _unreached(node: NodeStatus, notice: str) -> Diagnosis:
    """Return why the server is not connected, as the last refresh failed."""
    what = node.message or notice or "no server has answered yet"
    remedy = "" if node.message or notice else NodeUnreachableError.advice
    return diagnosis("server", what.removesuffix("."), remedy, level=Level.PROBLEM)


def _examined(request: AnyRequest, node: str) -> Examined:
    kept: dict[str, Examined] = request.app.state.setdefault(_KEPT, {})
    return kept.setdefault(node, Examined())


def _task(status: TaskStatus, now: Now) -> Task:
    name = wording.check_text(status.name).capitalize()
    state = "running" if status.up else "restarting"
    if status.failing_since:
        state = f"{state}, failing since {now.clock(status.failing_since)}"
    elif not status.up:
        state = "failing"
    if status.restarts:
        state = f"{state} ({counted(status.restarts, 'restart')})"
    return Task(name, status.up, state, status.failure)


def _upkeep(task: TaskStatus, status: UpkeepStatus, now: Now) -> Task:
    """Return a row for work at intervals, with its last and its next time."""
    row = _task(task, now)
    parts = [row.state]
    if status.last_at:
        at = f" at #{status.last_position}" if status.last_position else ""
        parts.append(f"last {now.clock(status.last_at)}{at}")
    if status.next_at:
        parts.append(f"next {now.clock(status.next_at)}")
    return row._replace(state=", ".join(parts))


def _free(page: PageRequest) -> str:
    """Return the free space on the server's disk; nothing for the past."""
    if page.past:
        return ""
    url = page.read_model.node_status().url
    free = free_disk(url, models_folder()) if url else None
    return free_text(free) if free is not None and free.size_bytes is not None else ""


def _running(
    page: PageRequest, runner: Runner, statuses: Sequence[ModelStatus]
) -> Running:
    now = page.now
    group = sorted(
        (
            status
            for status in statuses
            if status.runner and status.runner.digest == runner.digest
        ),
        key=lambda status: (status.name != runner.name, status.name),
    )
    load, used = group[0].last_load, last_used(group)
    return Running(
        runner,
        [status.name for status in group],
        facts.memory_text(runner, runner.name),
        facts.expiry_text(runner, now),
        f"{runner.context_length:,}" if runner.context_length else wording.UNKNOWN,
        load,
        wording.load_text(load, now),
        wording.used_text(used, now),
        used.last_used_at,
    )


def _finding(each: Diagnosis) -> Found:
    check = wording.check_text(each.check)
    return Found(each.level.value, _SIGNS[each.level], check, each.what, each.remedy)
