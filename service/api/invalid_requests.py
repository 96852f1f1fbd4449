"""The errors of requests that Litestar refuses: which parameter, and why."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum
from typing import Any, Final, get_args

import msgspec
from litestar.exceptions import HTTPException

from herdbook.core.errors.suggestions import did_you_mean
from herdbook.core.errors.validation import Violation, violation
from herdbook.service.errors import BadRequestError
from herdbook.service.http.exchange import has_body
from herdbook.service.http.request import AnyRequest

_BODY: Final = "data"
_MISSING: Final = re.compile(r"Missing required (.+) parameter '(.+)' for path .*")


def invalid_request(request: AnyRequest, error: HTTPException) -> BadRequestError:
    """Return the error of a request with invalid parameters or an invalid body."""
    missing = _MISSING.fullmatch(str(error.detail))
    if missing:
        return BadRequestError(f"{missing[1]} parameter {missing[2]!r}", "is missing")
    handler = request.scope.get("route_handler")
    fields = handler.parsed_fn_signature.parameters if handler else {}
    if _BODY in fields and not has_body(request.scope):
        return BadRequestError(
            "the body", "is missing", "Send JSON, with Content-Type: application/json"
        )
    extra = getattr(error, "extra", None)
    if not isinstance(extra, list) or not extra or not isinstance(extra[0], dict):
        return BadRequestError("the body", violation(str(error.detail)[:300]).problem)
    # Only the first one: it has a remedy of its own.
    key = str(extra[0].get("key", _BODY))
    found = violation(str(extra[0].get("message", ""))[:300])
    if key in fields and extra[0].get("source") != "body" and key != _BODY:
        name = getattr(fields[key].kwarg_definition, "name", None) or key
        found = found._replace(problem=found.problem.replace(" or null", ""))
        return _error(f"parameter {name!r}", found, _values(fields[key].raw))
    path = ".".join(each for each in (key.removeprefix(_BODY), found.field) if each)
    path = path.replace("[...]", "")
    body = fields[_BODY].raw if _BODY in fields else None
    subject = f"field {path!r}" if path else "the body"
    return _error(subject, found, _known(body, path, found))


def _error(subject: str, found: Violation, known: Sequence[str]) -> BadRequestError:
    given = found.value or found.field.rpartition(".")[2]
    label = "Values" if found.value else "Fields"
    listed = f"{label}: {', '.join(known)}" if known else ""
    return BadRequestError(subject, found.problem, did_you_mean(given, known) + listed)


def _known(body: Any, path: str, found: Violation) -> list[str]:
    """Return the values that a field may have, or the names of all fields."""
    if not found.value and found.problem != "is unknown":
        return []
    *parents, last = path.split(".")
    for name in parents:
        body = _fields(body).get(name)
    fields = _fields(body)
    return _values(fields.get(last)) if found.value else sorted(fields)


def _fields(kind: Any) -> dict[str, Any]:
    """Return the types of the fields of a struct, also of one in a union."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return {one.encode_name: one.type for one in msgspec.structs.fields(kind)}
    return next(filter(None, map(_fields, get_args(kind))), {})


def _values(kind: Any) -> list[str]:
    """Return the values of an enumeration, also of one in a list or a union."""
    if isinstance(kind, type) and issubclass(kind, Enum):
        return [str(each.value) for each in kind]
    return [value for each in get_args(kind) for value in _values(each)]
