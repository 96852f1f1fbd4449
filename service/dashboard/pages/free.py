"""The proposal of what to delete to free disk space."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from litestar import Response, get

from herdbook.core.desired.free_space import Group, free_space
from herdbook.core.fleet.disk_space import node_not_named
from herdbook.core.models.sizes import read_size
from herdbook.projections.sentences import bytes_text
from herdbook.service.auth.tokens import Role
from herdbook.service.dashboard.actions.bulk import Consequence, kept_because
from herdbook.service.dashboard.layout import render
from herdbook.service.dashboard.page_request import PageRequest, visit
from herdbook.service.errors import BadRequestError
from herdbook.service.http.request import AnyRequest


@get("/free", include_in_schema=False)
async def free_page(request: AnyRequest) -> Response[str]:
    """Propose models to delete to free disk space. Nothing is deleted.

    Raises:
        BadRequestError: The size cannot be read.
        AmbiguousNodeError: There are several nodes, and none is named.
        ForbiddenError: The user may not delete.
        InvalidDesiredError: The desired set of the service is not valid.
    """
    page = await visit(request)
    page.require(Role.ADMIN, "Models", "cannot be deleted here")
    text = request.query_params.get("size", "").strip()
    if not text:
        raise BadRequestError(
            "the size", "is missing", "Use a number and a unit, such as 10GB"
        )
    wanted = read_size(text, BadRequestError)
    now = page.service.clock.now()
    desired = await page.desired_models()
    if page.several and not page.node:
        raise node_not_named(page.nodes, wanted, keep=desired, now=now)
    statuses = page.read_model.statuses()
    proposal = free_space(statuses, wanted, keep=desired, now=now)
    groups = (*proposal.chosen, *proposal.alternatives)
    proposed = {step.name for group in groups for step in group.steps}
    kept = [
        Consequence(status.name, reason)
        for status in statuses
        if status.present
        and status.name not in proposed
        and (reason := kept_because(status, desired))
    ]
    return await render(
        page,
        "free.html",
        title="Free disk space",
        wanted=bytes_text(wanted),
        frees=bytes_text(proposal.frees_bytes),
        enough=proposal.is_enough,
        chosen=_groups(page, proposal.chosen),
        alternatives=_groups(page, proposal.alternatives),
        kept=kept,
        has_desired=page.service.settings.desired is not None,
    )


class Choice(NamedTuple):
    """Models that free space together, for a row of the proposal.

    Attributes:
        names: The models, which share their weights.
        frees: Disk space that they free.
        used: When one of them was last used.
        used_at: The same as a time.
    """

    names: list[str]
    frees: str
    used: str
    used_at: datetime | None


def _groups(page: PageRequest, groups: Sequence[Group]) -> list[Choice]:
    return [
        Choice(
            [step.name for step in group.steps],
            bytes_text(group.frees_bytes),
            page.now.ago(group.last_used_at) if group.last_used_at else "never",
            group.last_used_at,
        )
        for group in groups
    ]
