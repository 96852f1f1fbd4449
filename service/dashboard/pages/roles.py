"""The roles: the models for each with reasons, those not suitable, and suggestions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from litestar import Response, get

from herdbook.core import (
    Candidate,
    ModelRole,
    ModelState,
    ModelStatus,
    Recommendation,
    Suggestion,
)
from herdbook.core.concurrency.time_slice import TimeSlice
from herdbook.core.fleet import queries
from herdbook.presentation import wording
from herdbook.presentation.shapes import recommendation
from herdbook.projections.roles import NEEDS
from herdbook.projections.sentences import bytes_text
from herdbook.service.dashboard.layout import render
from herdbook.service.dashboard.page_request import PageRequest, visit
from herdbook.service.http.request import AnyRequest

AT_ONCE: Final = 4
"""Models of a role that are shown unfolded."""

SHOWN_AT_MOST: Final = 30
"""Maximum number of models of a role that are shown, of each kind."""


class Choice(NamedTuple):
    """A model that was considered for a role.

    Attributes:
        status: The status.
        word: The state, as text.
        why: The reasons for its rank.
    """

    status: ModelStatus
    word: str
    why: str


class Offer(NamedTuple):
    """A model that is worth pulling."""

    pull: str
    size: str
    memory: str
    reason: str
    note: str


class RoleShown(NamedTuple):
    """A role with its models.

    Attributes:
        role: The role.
        word: Its name.
        needs: The required capabilities.
        chosen: The suitable models, best first.
        passed_over: The other present models, and those in progress.
        more: Number of suitable models that are not shown.
        more_over: Number of other models that are not shown.
        absent: Number of other models that are not present.
        offers: Models to pull.
    """

    role: ModelRole
    word: str
    needs: str
    chosen: list[Choice]
    passed_over: list[Choice]
    more: int
    more_over: int
    absent: int
    offers: list[Offer]


@get("/roles", include_in_schema=False)
async def roles_page(request: AnyRequest) -> Response[str]:
    """Show the order of each role."""
    page, time_slice = await visit(request), TimeSlice()
    nodes = [page.read_model] if page.node else page.nodes
    registry, known = page.service.fleet.registry, []
    for status in (each for one in nodes for each in one.statuses()):
        if status.present and registry.find(status.name) is not None:
            known.append(status.name)  # others are never suggested
        await time_slice.checkpoint()
    used, roles = [name for one in nodes for name in one.used_before()], []
    for role in ModelRole:
        if page.past or len(nodes) == 1:
            answer = recommendation(nodes, role)
        else:
            answer = await queries.explain(page.service.fleet, role)
        await time_slice.checkpoint()
        found = registry.suggest(role, present=known, used=used)
        await time_slice.checkpoint()
        roles.append(_shown(page, answer, found))
    return await render(
        page,
        "roles.html",
        title="Roles",
        roles=roles,
        at_once=AT_ONCE,
    )


def _shown(
    page: PageRequest, answer: Recommendation, found: Sequence[Suggestion]
) -> RoleShown:
    role = answer.role
    over = [
        one for one in answer.passed_over if one.state is not ModelState.NOT_PRESENT
    ]
    return RoleShown(
        role=role,
        word=role.words,
        needs=" and ".join(need for need in NEEDS[role]) + _small(role),
        chosen=[_choice(page, one) for one in answer.chosen[:SHOWN_AT_MOST]],
        passed_over=[_choice(page, one) for one in over[:SHOWN_AT_MOST]],
        more=max(len(answer.chosen) - SHOWN_AT_MOST, 0),
        more_over=len(answer.passed_over) - min(len(over), SHOWN_AT_MOST),
        absent=len(answer.passed_over) - len(over),
        offers=[_offer(one) for one in found],
    )


def _small(role: ModelRole) -> str:
    return " and few parameters" if role is ModelRole.FAST else ""


def _choice(page: PageRequest, candidate: Candidate) -> Choice:
    status = page.of(candidate.node).status(candidate.name)
    why = wording.reasons_text(candidate, page.now)
    return Choice(status, wording.state_text(status), why)


def _offer(suggestion: Suggestion) -> Offer:
    known = suggestion.model
    return Offer(
        pull=suggestion.pull,
        size=_size(known.download_bytes),
        memory=_size(known.memory_bytes),
        reason=suggestion.reason,
        note=known.note,
    )


def _size(size: int | None) -> str:
    return wording.UNKNOWN if size is None else bytes_text(size)
