"""The errors of the service itself: what is wrong with a request, or its time.

    HerdbookError
    └── CallerError
        ├── BadRequestError            what was sent cannot be read
        ├── BadPathError               there is nothing at that path
        ├── BadMethodError             not with that method
        ├── UnknownOperationError      no operation of that id
        ├── UnknownModelError          nothing was ever recorded of that model
        ├── UnknownEventError          the log has no such event
        ├── KeyReusedError             the key was sent with another request
        ├── PreconditionMissingError   a change must say what it is based on
        ├── PreconditionFailedError    it changed since
        ├── UnsupportedMediaError      not in that format
        ├── TooLargeError              more bytes than are taken
        ├── TooSlowError               it took too long to send
        ├── UnauthorizedError          no token, or a wrong one
        ├── ForbiddenError             the token may not do that
        ├── ReadOnlyError              nobody may change anything here
        ├── CrossSiteError             another site's page asked
        ├── UnprovenFormError          a form that no page of ours sent
        ├── HostNotAllowedError        addressed by a name that is not ours
        ├── TooManyFailuresError       too many wrong tokens from there
        ├── OverloadedError            too many connections at once
        ├── InvalidServiceError        the service cannot be started like that
        └── StoppingError              it is about to stop

``problems.py`` says how each error is answered over HTTP.
"""

from __future__ import annotations

from herdbook.core import CallerError


class BadRequestError(CallerError):
    """What was sent cannot be read, or a parameter has no such value."""

    code = "bad_request"


class BadPathError(CallerError):
    """There is nothing at that path."""

    code = "not_found"


class BadMethodError(CallerError):
    """What is at that path does not take that method."""

    code = "method_not_allowed"


class UnknownOperationError(CallerError):
    """No operation has that id, or it is too long ago."""

    code = "unknown_operation"

    def __init__(self, operation: str) -> None:
        super().__init__(
            f"operation {operation[:80]!r}",
            "is not known",
            "The log has what ended long ago: GET /v1/events?correlation_id=…",
        )


class UnknownModelError(CallerError):
    """Nothing was ever recorded of a model of that name."""

    code = "unknown_model"


class UnknownEventError(CallerError):
    """The log has no event at that position."""

    code = "unknown_event"


class KeyReusedError(CallerError):
    """An idempotency key came again, with another request than before."""

    code = "idempotency_key_reused"


class PreconditionMissingError(CallerError):
    """A change does not say which version it is based on."""

    code = "precondition_required"


class PreconditionFailedError(CallerError):
    """What was to be changed is not any more at the version that was named."""

    code = "precondition_failed"


class UnsupportedMediaError(CallerError):
    """A body is in a format that is not taken there."""

    code = "unsupported_media_type"


class TooLargeError(CallerError):
    """A body or a header has more bytes than are taken."""

    code = "too_large"


class TooSlowError(CallerError):
    """A request took too long to come in."""

    code = "request_timeout"


class UnauthorizedError(CallerError):
    """There is no token, or not one that is known."""

    code = "unauthorized"


class ForbiddenError(CallerError):
    """The token is known, but its role does not reach."""

    code = "forbidden"


class ReadOnlyError(CallerError):
    """The service was started to be read only."""

    code = "read_only"


class CrossSiteError(CallerError):
    """A browser asked for the page of another site."""

    code = "cross_site"


class UnprovenFormError(CallerError):
    """A form without proof that a page of this service sent it."""

    code = "unproven_form"


class HostNotAllowedError(CallerError):
    """The request is addressed to a host that this service is not."""

    code = "host_not_allowed"


class TooManyFailuresError(CallerError):
    """Too many wrong tokens came from one address.

    Attributes:
        retry_after_s: Seconds after which one more is looked at.
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
    """The service has more connections than it answers at a time."""

    code = "overloaded"


class InvalidServiceError(CallerError):
    """The service cannot be started like that: an address, a token, a file."""

    code = "invalid_service"


class StoppingError(CallerError):
    """The service is about to stop and begins nothing more."""

    code = "stopping"
