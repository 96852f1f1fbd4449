"""A request as every handler takes it: who asks stands beside it, not in it."""

from __future__ import annotations

from typing import Any, TypeAlias

from litestar import Request

AnyRequest: TypeAlias = Request[Any, Any, Any]
"""A request, whatever its user, its credential and its state are typed as."""
