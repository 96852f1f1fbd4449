"""One request and its response: limits on the body, security headers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final

from herdbook.core import HerdbookError
from herdbook.service import problems
from herdbook.service.errors import TooLargeError, TooSlowError
from herdbook.service.http.asgi import Message, Receive, Scope, Send, header_values
from herdbook.service.settings import ServiceSettings

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""The content security policy: resources of this service only, nothing inline."""

SECURITY_HEADERS: Final[dict[str, str]] = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=()",
}
"""Headers of every response; the application cannot override them."""

_STORE: Final = b"cache-control"
_NO_STORE: Final = (_STORE, b"no-store")
_CORS: Final = b"access-control-"
_CLOSE: Final = (b"connection", b"close")


class Exchange:
    """Receives and sends on behalf of the application.

    A body that is too large or too slow gets its error response here, whatever the
    application does with the exception.

    Args:
        scope: The request.
        receive: Receives the request from the server.
        send: Sends the response to the server.
        settings: Limits on size and time.

    Attributes:
        status: The status of the response; None before it has started.
        refusal: The error because of which the body was refused, if it was.
    """

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, settings: ServiceSettings
    ) -> None:
        self.status: int | None = None
        self.refusal: HerdbookError | None = None
        self._scope = scope
        self._receive = receive
        self._send = send
        self._settings = settings
        self._until = asyncio.get_running_loop().time() + settings.request_within_s
        self._bytes = 0
        self._whole = False
        self._left = False

    async def receive(self) -> Message:
        """Return the next part of the request.

        Raises:
            TooLargeError: The body is too large.
            TooSlowError: The request did not arrive in time.
        """
        if self.refusal is not None:
            raise self.refusal
        if self._whole:
            return await self._receive()
        try:
            message = await self._receive_in_time()
        except HerdbookError as error:
            self.refusal = error
            raise
        self._left = message["type"] == "http.disconnect"
        self._whole = not message.get("more_body", False)
        return message

    async def _receive_in_time(self) -> Message:
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError:
            raise TooSlowError(
                "the request",
                f"did not arrive within {self._settings.request_within_s:g} s",
                "Send the whole request without pauses",
            ) from None
        self._bytes += len(message.get("body", b""))
        if self._bytes > self._settings.body_bytes:
            raise too_large(self._settings)
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the response.

        Nothing is sent if the request was refused or its client disconnected before
        the response started.
        """
        if self.status is not None or not (self.refusal or self._left):
            await self._pass_on(message)

    async def _pass_on(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = completed(message.get("headers", ()))
            if not self._whole and has_body(self._scope) and _CLOSE not in headers:
                # The rest of the body is never parsed, so no next request is found.
                headers.append(_CLOSE)
            message = {**message, "headers": headers}
        await self._send(message)

    async def refuse(
        self, error: HerdbookError, extra: Mapping[str, str] | None = None
    ) -> None:
        """Send an error response and close the connection.

        Does nothing if a response has already started.

        Args:
            error: The reason of the refusal.
            extra: Additional headers.
        """
        status, headers, body = problems.answer(error)
        headers = {**headers, "connection": "close"}
        await self.answer(status, {**headers, **(extra or {})}, body)

    async def answer(
        self, status: int, headers: Mapping[str, str], body: bytes
    ) -> None:
        """Send a complete response, unless one has already started."""
        if self.status is not None:
            return
        sent = {**headers, "content-length": str(len(body))}
        await self._pass_on(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(k.encode(), v.encode("latin-1")) for k, v in sent.items()],
            }
        )
        await self._pass_on({"type": "http.response.body", "body": body})


def has_body(scope: Mapping[str, Any]) -> bool:
    """Return whether the headers of a request announce a body."""
    lengths = header_values(scope, "content-length")
    return bool(header_values(scope, "transfer-encoding")) or lengths not in ([], ["0"])


def too_large(settings: ServiceSettings) -> TooLargeError:
    """Create the error for a body that exceeds the limit."""
    return TooLargeError(
        "the body",
        f"is larger than {settings.body_bytes} bytes",
        "Send a smaller body",
    )


def completed(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers of a response with the security headers added.

    Headers that would let another site read the response are removed.
    """
    ours = [(k.encode(), v.encode()) for k, v in SECURITY_HEADERS.items()]
    names = {name for name, _ in ours}
    own = [
        (name, value)
        for name, value in ((bytes(n).lower(), bytes(v)) for n, v in headers)
        if name not in names and not name.startswith(_CORS)
    ]
    stored = [] if any(name == _STORE for name, _ in own) else [_NO_STORE]
    return [*own, *ours, *stored]
