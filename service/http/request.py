"""The type of requests in handlers."""

from __future__ import annotations

from typing import Any, TypeAlias

from litestar import Request

AnyRequest: TypeAlias = Request[Any, Any, Any]
"""A Litestar request. Its user, auth and state types are not used: the middleware
stores the user in the ASGI scope (``middleware.principal_of``)."""
