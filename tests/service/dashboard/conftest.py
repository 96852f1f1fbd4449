"""A client of the pages of a running service."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.service_program import ServiceThread
from support.web.html_client import HtmlClient, open_client


@pytest.fixture
def browser(herdbook: ServiceThread) -> Iterator[HtmlClient]:
    """Return a client that reads pages and sends forms."""
    with open_client(herdbook.address) as client:
        yield client
