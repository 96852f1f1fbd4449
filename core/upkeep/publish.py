"""Send an anchor over HTTP: to any URL, or to another Herdbook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec

from herdbook.core.clock import Clock
from herdbook.core.errors import CallerError
from herdbook.core.proof.anchor import Anchor
from herdbook.events.errors import HerdbookError, in_line

if TYPE_CHECKING:
    import httpx

ANSWER_WITHIN_S: Final = 15.0
"""Seconds for a whole request, from the connection to the answer."""

PROBLEM: Final = "application/problem+json"
"""The content type of an error (RFC 9457)."""

LONGEST_PROBLEM: Final = 1 << 16
"""Length above which an error is not read, bytes."""


class _Problem(msgspec.Struct):
    """The part of an error that is shown."""

    detail: str


class NotPublishedError(HerdbookError):
    """An anchor was not accepted; it is sent again later."""

    code = "anchor_not_published"


def check_url(url: str) -> str:
    """Return a URL without the slash at its end.

    Raises:
        CallerError: It is not an HTTP URL.
    """
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in {"http", "https"} and bool(parts.hostname)
        _ = parts.port  # raises where it is not a number
    except ValueError:
        is_valid = False
    if not is_valid:
        raise CallerError(
            repr(url[:200]), "is not a URL for anchors", "Use https://HOST/PATH"
        )
    return url.rstrip("/")


async def post_text(url: str, anchor: Anchor, *, clock: Clock) -> None:
    """Send the text of an anchor to a URL.

    Raises:
        NotPublishedError: It was not accepted within ``ANSWER_WITHIN_S``.
    """
    headers = {"content-type": "text/plain; charset=utf-8"}
    await _post(url, anchor.text().encode(), headers, clock)


async def post_to_herdbook(
    url: str, anchor: Anchor, *, token: str, clock: Clock
) -> None:
    """Send an anchor to the service of another Herdbook, which records it.

    Args:
        url: The address of the service.
        anchor: The anchor.
        token: A token of that service; empty if it needs none.
        clock: Measures the time for the answer.

    Raises:
        NotPublishedError: It was not accepted within ``ANSWER_WITHIN_S``.
    """
    headers = {"content-type": "application/json"}
    if token:
        headers["authorization"] = f"Bearer {token}"
    body = msgspec.json.encode({"anchor": anchor.text()})
    await _post(f"{url}/v1/anchors", body, headers, clock)


async def _post(
    url: str, body: bytes, headers: Mapping[str, str], clock: Clock
) -> None:
    # httpx brings Rich and click along where they are installed: not on import.
    import httpx  # noqa: PLC0415

    where = _shown(url)
    try:
        async with (
            clock.timeout(ANSWER_WITHIN_S),
            httpx.AsyncClient(timeout=ANSWER_WITHIN_S) as client,
            client.stream("POST", url, content=body, headers=headers) as answer,
        ):
            failure = "" if answer.is_success else await _failure(answer)
    except TimeoutError as error:
        raise _failed(where, f"no answer within {ANSWER_WITHIN_S:.0f} s") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = f"{error}" or type(error).__name__
        raise _failed(where, in_line(reason)) from error
    if failure:
        raise _failed(where, failure)


async def _failure(answer: httpx.Response) -> str:
    """Return the status of an answer, and the reason that a Herdbook gives for it."""
    status = f"the answer has status {answer.status_code}"
    if not answer.headers.get("content-type", "").startswith(PROBLEM):
        return status
    body = b""
    async for chunk in answer.aiter_bytes():
        body += chunk
        if len(body) > LONGEST_PROBLEM:
            return status
    try:
        problem = msgspec.json.decode(body, type=_Problem)
    except (msgspec.MsgspecError, UnicodeError):
        return status
    return f"{status}: {problem.detail}"


def _failed(where: str, reason: str) -> NotPublishedError:
    return NotPublishedError(where, f"did not accept the anchor: {reason}", "")


def _shown(url: str) -> str:
    """Return a URL without a password and without a query, which may have secrets."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"
