"""One request and its answer, bounded on the way in and completed on the way out."""

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
"""What a page may load: what this service serves, and nothing that stands in it."""

SECURITY_HEADERS: Final[dict[str, str]] = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=()",
}
"""What every answer has; an application cannot say otherwise."""

_STORE: Final = b"cache-control"
_NO_STORE: Final = (_STORE, b"no-store")
_CORS: Final = b"access-control-"
_CLOSE: Final = (b"connection", b"close")


class Exchange:
    """Receives and sends for the application.

    A body that is too long or too slow is answered here, whatever the application
    makes of the error that it meets.

    Args:
        scope: The request.
        receive: What receives its parts.
        send: What sends the answer's.
        settings: How much and how long.

    Attributes:
        status: The status of the answer; None while there is none.
        refusal: Why the body was not taken; None if it was.
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
            TooLargeError: Its body is too long.
            TooSlowError: It has not wholly come in time.
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
                f"has not come within {self._settings.request_within_s:g} s",
                "Send it again, all at once",
            ) from None
        self._bytes += len(message.get("body", b""))
        if self._bytes > self._settings.body_bytes:
            raise too_large(self._settings)
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the answer.

        What answers a request that was refused meanwhile, or broke off in its midst,
        goes nowhere.
        """
        if self.status is not None or not (self.refusal or self._left):
            await self._pass_on(message)

    async def _pass_on(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = completed(message.get("headers", ()))
            if not self._whole and has_body(self._scope) and _CLOSE not in headers:
                # The rest is not parsed to get at what might come behind it.
                headers.append(_CLOSE)
            message = {**message, "headers": headers}
        await self._send(message)

    async def refuse(
        self, error: HerdbookError, extra: Mapping[str, str] | None = None
    ) -> None:
        """Answer an error and close the connection; once an answer began, do not.

        Args:
            error: Why the request is refused.
            extra: More headers.
        """
        status, headers, body = problems.answer(error)
        headers = {**headers, "connection": "close"}
        await self.answer(status, {**headers, **(extra or {})}, body)

    async def answer(
        self, status: int, headers: Mapping[str, str], body: bytes
    ) -> None:
        """Answer at once and wholly, unless an answer has begun."""
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
    """Return whether a request says that it has a body."""
    lengths = header_values(scope, "content-length")
    return bool(header_values(scope, "transfer-encoding")) or lengths not in ([], ["0"])


def too_large(settings: ServiceSettings) -> TooLargeError:
    """Return what is said of a body that is too long."""
    return TooLargeError(
        "the request's body",
        f"has more than {settings.body_bytes} bytes",
        "Send less at once",
    )


def completed(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return an answer's headers with those that every answer has.

    What would let another site read the answer is left out.
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
