"""What an exchange shows about the use of a model; never its prompt or its answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from herdbook.events.facts import UseOutcome
from herdbook.gateway.protocol.endpoints import (
    FORMS,
    NO_TEXT,
    Effect,
    Endpoint,
    lines_per_piece,
)
from herdbook.gateway.protocol.headers import Values
from herdbook.gateway.protocol.json_bodies import Fields
from herdbook.gateway.recording.compression import Decoder
from herdbook.gateway.recording.counts import (
    HEAD_BYTES,
    TAIL_BYTES,
    Counts,
    counts_of,
    lacks_end,
)
from herdbook.gateway.recording.model_scan import ModelScan
from herdbook.gateway.recording.multipart import FormScan

if TYPE_CHECKING:
    from herdbook.gateway.access.checks import Caller

_KEYS: Final = ("model", "name", "destination")
_FAILURES: Final = {
    400: "invalid_request",
    401: "refused",
    403: "refused",
    404: "model_not_found",
    429: "server_busy",
    501: "capability_missing",
    503: "server_busy",
}


class UnreportedTokens(NamedTuple):
    """What is known of tokens that a server did not report.

    Attributes:
        prompt_bytes: Length of the request, if the tokens of its prompt are unknown.
        pieces: Pieces of a streamed answer whose tokens are unknown. Each piece has one
            token or more.
    """

    prompt_bytes: int = 0
    pieces: int = 0


_NOTHING: Final = UnreportedTokens()


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """A request about a model that has ended.

    Attributes:
        endpoint: What was asked.
        caller: Who asked.
        model: Name of the model as the client wrote it, or as the gateway chose it;
            empty if there is none.
        role: The role that was requested; empty if none was.
        started_at: When the request arrived, seconds since 1970.
        duration_s: Time until the exchange ended, seconds.
        first_token_s: Time until the first byte of a successful answer, seconds; None
            if there was none.
        outcome: How it ended.
        failure: Stable code of the failure; empty if it did not fail.
        counts: What the answer reported.
        unreported: What is known of tokens that it did not report.
    """

    endpoint: Endpoint
    caller: Caller
    model: str
    role: str
    started_at: float
    duration_s: float
    first_token_s: float | None
    outcome: UseOutcome
    failure: str
    counts: Counts
    unreported: UnreportedTokens = _NOTHING

    @property
    def tokens(self) -> tuple[int, int]:
        """Tokens of the prompt and of the answer, as the server reports them."""
        return self.counts.prompt_tokens or 0, self.counts.output_tokens or 0


class UseTracker:
    """Follows an exchange, and reports the use when it ends.

    Args:
        endpoint: What was asked.
        caller: Who asked.

    Attributes:
        endpoint: What was asked.
        caller: Who asked.
        started: When the request arrived, seconds of the monotonic clock.
        report: Called with the use at the end; set before that.
    """

    __slots__ = (
        "_asked_bytes",
        "_chosen",
        "_complete",
        "_decoder",
        "_first",
        "_head",
        "_kind",
        "_lines",
        "_scan",
        "_started_at",
        "_status",
        "_tail",
        "caller",
        "endpoint",
        "report",
        "started",
    )

    def __init__(self, endpoint: Endpoint, caller: Caller) -> None:
        self.endpoint = endpoint
        self.caller = caller
        self.report: Callable[[Use], None] = lambda _: None
        is_form = endpoint.path in FORMS
        self._scan = FormScan(_KEYS) if is_form else ModelScan(_KEYS)
        self.started = time.monotonic()
        self._started_at = time.time()
        self._chosen = ("", "")
        self._asked_bytes = self._lines = 0
        self._complete = False
        self._decoder: Decoder | None = None
        self._first: float | None = None
        self._status = 0
        self._kind = b""
        self._head = b""
        self._tail = bytearray()

    @property
    def model(self) -> str:
        """Name of the model, as far as the request was read; else empty."""
        if self._chosen[0]:
            return self._chosen[0]
        for key in _KEYS:
            if named := self._scan.found.get(key):
                return named
        return ""

    def request_body(self, data: bytes) -> None:
        """Receive a piece of the request's body."""
        self._scan.feed(data)
        self._asked_bytes += len(data)

    def request_end(self) -> None:
        """Receive the end of the request."""
        self._complete = True

    def whole_request_body(self, data: bytes, fields: Fields) -> None:
        """Take the whole body of a request, instead of its pieces.

        Args:
            data: The body.
            fields: Its fields; empty if they are not known.
        """
        self._scan.feed_whole(data, fields)
        self._asked_bytes += len(data)

    def choose(self, model: str, role: str) -> None:
        """Take the model that the gateway chose, and the requested role."""
        self._chosen = (model, role)

    def answer_head(self, status: int, values: Values) -> None:
        """Receive the head of the answer."""
        self._status = status
        self._kind = values.get(b"content-type", b"").lower()
        coding = values.get(b"content-encoding")
        self._decoder = None if coding is None else Decoder(coding)

    def answer_body(self, data: bytes) -> None:
        """Receive a piece of the answer's body."""
        if self._first is None:
            self._first = time.monotonic()
        if self._decoder is None:
            self._keep(data)
        else:
            for piece in self._decoder.pieces(data):
                self._keep(piece)

    def _keep(self, data: bytes) -> None:
        if not self._head:
            self._head = data[:HEAD_BYTES]
        self._lines += data.count(b"\n")
        tail = self._tail
        tail += data[-TAIL_BYTES:]
        if len(tail) > 4 * TAIL_BYTES:
            del tail[:-TAIL_BYTES]

    def end(self, outcome: UseOutcome, failure: str) -> None:
        """Report the use."""
        now = time.monotonic()
        succeeded = self._status < 400
        tail = bytes(self._tail[-TAIL_BYTES:])
        counts = counts_of(self._head, tail) if succeeded else Counts()
        if outcome is UseOutcome.COMPLETED and not succeeded:
            outcome = UseOutcome.FAILED
            failure = self._failure
        elif outcome is UseOutcome.COMPLETED and (
            counts.failed or lacks_end(self.endpoint, self._kind, tail)
        ):
            outcome, failure = UseOutcome.FAILED, "server_failed"
        first = self._first if succeeded else None
        unreported = self._unreported(counts, outcome, answered=first is not None)
        self.report(
            Use(
                endpoint=self.endpoint,
                caller=self.caller,
                model=self.model,
                role=self._chosen[1],
                started_at=self._started_at,
                duration_s=now - self.started,
                first_token_s=None if first is None else first - self.started,
                outcome=outcome,
                failure=failure,
                counts=counts,
                unreported=unreported,
            )
        )

    @property
    def _failure(self) -> str:
        """Return the code of the failure that the status of the answer shows."""
        if self._status == 404 and b"json" not in self._kind:
            return "refused"  # the server has no such endpoint, or it is a proxy's page
        other = "server_failed" if self._status >= 500 else "refused"
        return _FAILURES.get(self._status, other)

    def _unreported(
        self, counts: Counts, outcome: UseOutcome, *, answered: bool
    ) -> UnreportedTokens:
        """Return what is known of tokens that the server did not report.

        A client that leaves before the answer begins has made the server read its
        prompt; a server that fails then has done nothing for it.
        """
        if counts.prompt_tokens is not None and counts.output_tokens is not None:
            return _NOTHING
        used = self._complete and self.endpoint.effect is Effect.USE
        if not used or counts.only:
            return _NOTHING
        if not answered and outcome is not UseOutcome.CLIENT_LEFT:
            return _NOTHING
        pieces = 0
        if counts.output_tokens is None and self.endpoint.path not in NO_TEXT:
            lines, others = lines_per_piece(self.endpoint)
            pieces = max(self._lines // lines - others, 0)
        return UnreportedTokens(
            self._asked_bytes if counts.prompt_tokens is None else 0, pieces
        )
