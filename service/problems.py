"""Errors as HTTP responses: the status of each class, and ``problem+json`` (RFC 9457).

The status is that of the nearest class in the error's MRO that ``STATUSES`` has. The
text of an unexpected error is not sent, because it could contain private data.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

import msgspec

from herdbook.core import (
    AmbiguousNodeError,
    BusyError,
    BusyServerError,
    CallerError,
    CapabilityMissingError,
    CloudModelError,
    ConflictError,
    DiskFullError,
    HerdbookError,
    IllegalTransitionError,
    ModelNotFoundError,
    NodeAddressError,
    NodeTimeoutError,
    NoPlaceError,
    OllamaError,
    OperationEndedError,
    ResourceExhaustedError,
    StalledError,
    StoreClosedError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
    UnknownNodeError,
    UnknownRoleError,
)
from herdbook.service import errors

MEDIA_TYPE: Final = "application/problem+json"

STATUSES: Final[dict[type[HerdbookError], HTTPStatus]] = {
    HerdbookError: HTTPStatus.INTERNAL_SERVER_ERROR,
    # The request cannot be carried out.
    CallerError: HTTPStatus.BAD_REQUEST,
    AmbiguousNodeError: HTTPStatus.CONFLICT,
    BusyError: HTTPStatus.CONFLICT,
    NodeAddressError: HTTPStatus.CONFLICT,
    NoPlaceError: HTTPStatus.CONFLICT,
    IllegalTransitionError: HTTPStatus.CONFLICT,
    ModelNotFoundError: HTTPStatus.NOT_FOUND,
    OperationEndedError: HTTPStatus.CONFLICT,
    UnknownNodeError: HTTPStatus.NOT_FOUND,
    UnknownRoleError: HTTPStatus.NOT_FOUND,
    ResourceExhaustedError: HTTPStatus.SERVICE_UNAVAILABLE,
    # The Ollama server failed, refused, or cannot be reached.
    OllamaError: HTTPStatus.BAD_GATEWAY,
    BusyServerError: HTTPStatus.SERVICE_UNAVAILABLE,
    CapabilityMissingError: HTTPStatus.CONFLICT,
    DiskFullError: HTTPStatus.INSUFFICIENT_STORAGE,
    CloudModelError: HTTPStatus.CONFLICT,
    NodeTimeoutError: HTTPStatus.GATEWAY_TIMEOUT,
    StalledError: HTTPStatus.GATEWAY_TIMEOUT,
    # The log failed.
    StoreError: HTTPStatus.INTERNAL_SERVER_ERROR,
    ConflictError: HTTPStatus.CONFLICT,
    StoreClosedError: HTTPStatus.SERVICE_UNAVAILABLE,
    StoreFullError: HTTPStatus.INSUFFICIENT_STORAGE,
    StoreUnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
    # The service itself.
    errors.BadMethodError: HTTPStatus.METHOD_NOT_ALLOWED,
    errors.BadPathError: HTTPStatus.NOT_FOUND,
    errors.CrossSiteError: HTTPStatus.FORBIDDEN,
    errors.ForbiddenError: HTTPStatus.FORBIDDEN,
    errors.HostNotAllowedError: HTTPStatus.MISDIRECTED_REQUEST,
    errors.KeyReusedError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.ModelKeptError: HTTPStatus.CONFLICT,
    errors.OverloadedError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.PreconditionFailedError: HTTPStatus.PRECONDITION_FAILED,
    errors.PreconditionMissingError: HTTPStatus.PRECONDITION_REQUIRED,
    errors.ReadOnlyError: HTTPStatus.FORBIDDEN,
    errors.StoppingError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.TokenConflictError: HTTPStatus.CONFLICT,
    errors.TooLargeError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.TooManyFailuresError: HTTPStatus.TOO_MANY_REQUESTS,
    errors.TooSlowError: HTTPStatus.REQUEST_TIMEOUT,
    errors.UnauthorizedError: HTTPStatus.UNAUTHORIZED,
    errors.UnknownEventError: HTTPStatus.NOT_FOUND,
    errors.UnknownModelError: HTTPStatus.NOT_FOUND,
    errors.UnknownOperationError: HTTPStatus.NOT_FOUND,
    errors.UnknownTokenError: HTTPStatus.NOT_FOUND,
    errors.UnprovenFormError: HTTPStatus.FORBIDDEN,
    errors.UnsupportedMediaError: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
}
"""The HTTP status of each error class; subclasses inherit it."""

RETRY_AFTER_S: Final = 1
"""``Retry-After`` of responses with status 503, in seconds."""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """An error, as ``application/problem+json``.

    Attributes:
        title: The HTTP status in words.
        status: The HTTP status.
        code: A stable identifier of the kind of error.
        detail: Subject, state and remedy in one line.
        subject: The thing that the error is about, for example a model.
        state: What is wrong with the subject.
        remedy: How to fix it; may be empty.
    """

    title: str
    status: int
    code: str
    detail: str
    subject: str
    state: str
    remedy: str


def status_of(error: HerdbookError) -> HTTPStatus:
    """Return the HTTP status of an error."""
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)


def problem_of(error: HerdbookError) -> Problem:
    """Convert an error to its problem document."""
    status = status_of(error)
    return Problem(
        title=status.phrase,
        status=status.value,
        code=error.code,
        detail=str(error).strip(),
        subject=error.subject,
        state=error.state,
        remedy=error.remedy,
    )


UNEXPECTED: Final = Problem(
    title=HTTPStatus.INTERNAL_SERVER_ERROR.phrase,
    status=HTTPStatus.INTERNAL_SERVER_ERROR.value,
    code="unexpected",
    detail="unexpected error. This is a bug in Herdbook; its log output has the "
    "traceback",
    subject="",
    state="unexpected error",
    remedy="This is a bug in Herdbook; its log output has the traceback",
)
"""The problem document of every unexpected error."""


def headers_of(error: HerdbookError) -> dict[str, str]:
    """Return the headers of an error response, without its content type."""
    status = status_of(error)
    if isinstance(error, errors.TooManyFailuresError):
        return {"retry-after": str(error.retry_after_s)}
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        return {"retry-after": str(RETRY_AFTER_S)}
    if status is HTTPStatus.UNAUTHORIZED:
        return {"www-authenticate": 'Bearer realm="herdbook"'}
    return {}


def answer(error: HerdbookError) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of an error response."""
    problem = problem_of(error)
    headers = {"content-type": MEDIA_TYPE, **headers_of(error)}
    return problem.status, headers, msgspec.json.encode(problem)
