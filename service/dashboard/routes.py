"""The handlers of the dashboard, and the page for errors."""

from __future__ import annotations

from typing import Final

from litestar import Router
from litestar.handlers.base import BaseRouteHandler

from herdbook.service.auth.forms import needs_proof, read_form
from herdbook.service.dashboard.actions.bulk import confirm_bulk, perform_bulk
from herdbook.service.dashboard.actions.confirm import confirm_page
from herdbook.service.dashboard.actions.perform import perform
from herdbook.service.dashboard.layout import error_page
from herdbook.service.dashboard.pages.compare import compare_page
from herdbook.service.dashboard.pages.figures import figures_page
from herdbook.service.dashboard.pages.free import free_page
from herdbook.service.dashboard.pages.log import event_page, log_page
from herdbook.service.dashboard.pages.model import model_page
from herdbook.service.dashboard.pages.models import models_page, pull_by_name
from herdbook.service.dashboard.pages.nodes import (
    add_node,
    confirm_remove,
    drain_node,
    nodes_page,
    remove_node,
    undrain_node,
)
from herdbook.service.dashboard.pages.roles import roles_page
from herdbook.service.dashboard.pages.server import node_page, refresh_now
from herdbook.service.dashboard.pages.settings import change_settings, settings_page
from herdbook.service.dashboard.pages.tokens import (
    confirm_revoke,
    create_on_page,
    revoke_on_page,
    tokens_page,
)
from herdbook.service.dashboard.pages.usage import usage_page
from herdbook.service.dashboard.static_files import static_file
from herdbook.service.http.request import AnyRequest
from herdbook.service.middleware import authenticator_of, principal_of

__all__ = ["PAGES", "error_page"]


async def _only_our_forms(request: AnyRequest) -> None:
    """Refuse a form that no page of this service sent.

    Raises:
        UnprovenFormError: It has no proof.
        BadRequestError: It cannot be read.
    """
    if needs_proof(request.scope):
        form = await read_form(request)
        authenticator_of(request).forms.check(
            request.scope, principal_of(request), form
        )


_HANDLERS: Final[list[BaseRouteHandler]] = [
    models_page,
    pull_by_name,
    model_page,
    settings_page,
    change_settings,
    confirm_page,
    perform,
    confirm_bulk,
    perform_bulk,
    free_page,
    roles_page,
    usage_page,
    log_page,
    event_page,
    nodes_page,
    add_node,
    confirm_remove,
    drain_node,
    undrain_node,
    remove_node,
    node_page,
    refresh_now,
    figures_page,
    compare_page,
    tokens_page,
    create_on_page,
    confirm_revoke,
    revoke_on_page,
    static_file,
]

PAGES: Final = Router(
    path="/", route_handlers=_HANDLERS, before_request=_only_our_forms
)
"""All pages."""
