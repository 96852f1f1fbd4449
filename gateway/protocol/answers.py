"""Answers of the gateway itself, in the form of the API that was asked.

A client that expects Ollama, OpenAI or Anthropic reads the gateway's errors as it reads
those of the server.
"""

from __future__ import annotations

import secrets
from typing import Final

import msgspec

from herdbook.gateway.protocol.endpoints import Form
from herdbook.gateway.protocol.headers import Headers

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

_REASONS: Final = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    408: "Request Timeout",
    409: "Conflict",
    413: "Content Too Large",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
}
_ANTHROPIC: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
_OPENAI: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class Refusal(Exception):  # noqa: N818 - an answer, not a failure of the gateway
    """A request that the gateway answers itself.

    Attributes:
        status: The HTTP status.
        message: What is wrong, and what to do.
        retry_after_s: Seconds after which another try makes sense; None if unknown.
    """

    def __init__(
        self, status: int, message: str, *, retry_after_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.status = status
        self.message = message


def error_body(form: Form, status: int, message: str) -> bytes:
    """Return the body of an error."""
    invalid = "invalid_request_error" if status < 500 else "api_error"
    match form:
        case Form.OLLAMA:
            return msgspec.json.encode({"error": message})
        case Form.OPENAI:
            kind = _OPENAI.get(status, invalid)
            error = {"message": message, "type": kind, "param": None, "code": None}
            return msgspec.json.encode({"error": error})
        case Form.ANTHROPIC:
            kind = _ANTHROPIC.get(status, invalid)
            return msgspec.json.encode(
                {
                    "type": "error",
                    "error": {"type": kind, "message": message},
                    "request_id": f"req_{secrets.token_hex(12)}",
                }
            )


def error_answer(
    form: Form, refusal: Refusal, headers: Headers, *, head_only: bool
) -> bytes:
    """Return a whole answer; it announces that the connection will be closed.

    Args:
        form: The API that was asked.
        refusal: The error.
        headers: Further headers.
        head_only: Whether a HEAD request is answered.
    """
    body = error_body(form, refusal.status, refusal.message)
    lines = [
        f"HTTP/1.1 {refusal.status} {_REASONS[refusal.status]}",
        "Content-Type: application/json; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    if refusal.retry_after_s is not None:
        lines.append(f"Retry-After: {refusal.retry_after_s}")
    if refusal.status == 401:
        lines.append('WWW-Authenticate: Bearer realm="herdbook"')
    start = "\r\n".join(lines).encode() + b"\r\n"
    head = b"".join([start, *(b"%b: %b\r\n" % header for header in headers), b"\r\n"])
    return head if head_only else head + body
