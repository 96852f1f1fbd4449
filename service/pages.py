"""The dashboard: its pages, what they load, and the page for what went wrong."""

from __future__ import annotations

from typing import Final

from litestar.handlers.base import BaseRouteHandler

from herdbook.service.page_actions import confirm_page, do_it
from herdbook.service.page_compare import compare_page
from herdbook.service.page_frame import error_page
from herdbook.service.page_herd import herd_page, pull_by_name
from herdbook.service.page_log import event_page, log_page
from herdbook.service.page_model import model_page
from herdbook.service.page_node import look_again, node_page
from herdbook.service.page_roles import roles_page
from herdbook.service.page_settings import change_settings, settings_page
from herdbook.service.static_files import static_file

__all__ = ["PAGES", "error_page"]

PAGES: Final[list[BaseRouteHandler]] = [
    herd_page,
    pull_by_name,
    model_page,
    settings_page,
    change_settings,
    confirm_page,
    do_it,
    roles_page,
    log_page,
    event_page,
    node_page,
    look_again,
    compare_page,
    static_file,
]
"""The handlers of all pages."""
