"""Errors of the service itself: invalid requests, denied access, overload.

    HerdbookError
    └── CallerError
        ├── BadRequestError            the request or a parameter is invalid
        ├── BadPathError               no such path
        ├── BadMethodError             the path does not support the method
        ├── UnknownOperationError      no operation has the id
        ├── UnknownModelError          the log has no events of the model
        ├── UnknownEventError          the log has no event at the position
        ├── ModelKeptError             free may not delete the model
        ├── UnknownTokenError          no token has the name
        ├── TokenConflictError         the tokens cannot be changed like that
        ├── KeyReusedError             idempotency key sent with another request
        ├── PreconditionMissingError   If-Match is missing
        ├── PreconditionFailedError    changed since the version in If-Match
        ├── UnsupportedMediaError      unsupported format of a body
        ├── TooLargeError              body or head too large
        ├── TooSlowError               the request took too long to arrive
        ├── UnauthorizedError          token missing or unknown
        ├── ForbiddenError             the role of the token is not sufficient
        ├── ReadOnlyError              the service is read-only
        ├── CrossSiteError             sent by a page of another site
        ├── UnprovenFormError          form without a valid proof
        ├── HostNotAllowedError        the Host header is not allowed
        ├── TooManyFailuresError       too many unknown tokens from one address
        ├── OverloadedError            too many connections or replays
        ├── InvalidServiceError        invalid address, token or token file
        └── StoppingError              the service is stopping

``problems.py`` maps each error to its HTTP status.
"""

from __future__ import annotations

from herdbook.core import CallerError


class BadRequestError(CallerError):
    """The request cannot be parsed, or a parameter has an invalid value."""

    code = "bad_request"


class BadPathError(CallerError):
    """The path does not exist."""

    code = "not_found"

    def __init__(self, path: str) -> None:
        in_api = path.startswith("/v1/")
        super().__init__(
            f"path {path[:200]!r}",
            "does not exist",
            "To list the paths: GET /v1/openapi.json" if in_api else "",
        )


class BadMethodError(CallerError):
    """The path exists, but does not support the method."""

    code = "method_not_allowed"

    def __init__(self, method: str, path: str, allowed: str) -> None:
        super().__init__(
            f"method {method}",
            f"is not supported by {path[:200]!r}",
            f"Supported: {allowed}" if allowed else "",
        )


class ModelKeptError(CallerError):
    """Freeing disk space may not delete the model."""

    code = "model_kept"


class UnknownOperationError(CallerError):
    """No operation of the last 24 hours has the id, as far as the log shows.

    A load that waits for its turn in another service is not in the log yet.
    """

    code = "unknown_operation"

    def __init__(self, operation: str) -> None:
        super().__init__(
            f"operation {operation[:80]!r}",
            "does not exist, ended more than 24 hours ago, or waits in another service",
            "Older ones are in the log: GET /v1/events?correlation_id=…",
        )


class UnknownModelError(CallerError):
    """The log has no events of the model."""

    code = "unknown_model"


class UnknownEventError(CallerError):
    """The log has no event at the position."""

    code = "unknown_event"


class UnknownTokenError(CallerError):
    """The token file has no token with the name."""

    code = "unknown_token"


class TokenConflictError(CallerError):
    """The token exists, is needed, or the token file cannot be changed."""

    code = "token_conflict"


class KeyReusedError(CallerError):
    """An idempotency key was sent before, with another request."""

    code = "idempotency_key_reused"


class PreconditionMissingError(CallerError):
    """A change has no ``If-Match`` header."""

    code = "precondition_required"


class PreconditionFailedError(CallerError):
    """The resource has changed since the version in ``If-Match``."""

    code = "precondition_failed"


class UnsupportedMediaError(CallerError):
    """The format of a body is not supported by the path."""

    code = "unsupported_media_type"


class TooLargeError(CallerError):
    """The body or the head of a request exceeds its limit."""

    code = "too_large"


class TooSlowError(CallerError):
    """A request did not arrive in time."""

    code = "request_timeout"


class UnauthorizedError(CallerError):
    """The token or the session is missing, unknown or expired."""

    code = "unauthorized"


class ForbiddenError(CallerError):
    """The token is valid, but its role is not sufficient."""

    code = "forbidden"


class ReadOnlyError(CallerError):
    """The service was started with ``--read-only``."""

    code = "read_only"


class CrossSiteError(CallerError):
    """A browser sent the request for a page of another site."""

    code = "cross_site"


class UnprovenFormError(CallerError):
    """A form has no valid proof that a page of this service sent it."""

    code = "unproven_form"


class HostNotAllowedError(CallerError):
    """The ``Host`` header is not a name of this service."""

    code = "host_not_allowed"


class TooManyFailuresError(CallerError):
    """One address has sent too many unknown tokens.

    Attributes:
        retry_after_s: Seconds until the address may try again.
    """

    code = "too_many_failures"

    def __init__(self, retry_after_s: int) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(
            "this address",
            "has sent too many wrong tokens",
            f"Try again in {retry_after_s} s",
        )


class OverloadedError(CallerError):
    """The service has too many connections, or too many replays are waiting."""

    code = "overloaded"


class InvalidServiceError(CallerError):
    """The service cannot start: its address, a token or a file is invalid."""

    code = "invalid_service"


class StoppingError(CallerError):
    """The service is stopping and starts no new operations."""

    code = "stopping"
