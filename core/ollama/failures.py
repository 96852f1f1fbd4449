"""What the server says went wrong, turned into one of our errors.

Ollama has no codes: there is a status and a sentence, and the sentence differs by
version and endpoint. So each rule here is a pattern for what is common to them, the
first that fits decides, and the sentence itself is kept in the error's ``raw``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Final, TypeAlias

from herdbook.core.errors import (
    BadAnswerError,
    BusyServerError,
    CapabilityMissingError,
    DigestMismatchError,
    DiskFullError,
    HerdbookError,
    InvalidConfigurationError,
    InvalidNameError,
    LoadFailedError,
    LoadFailure,
    ModelDamagedError,
    ModelNotFoundError,
    OllamaError,
    PullCancelledError,
    PullRefusal,
    PullRefusedError,
    RefusedError,
    ServerFailedError,
)

Failure: TypeAlias = Callable[[str, str], HerdbookError]
"""Makes an error of a subject and what the server said."""

Rules: TypeAlias = Sequence[tuple[re.Pattern[str], Failure]]


class Request(StrEnum):
    """What the server was asked for: the same words mean other things elsewhere."""

    LOOK = "look"
    LOAD = "load"
    PULL = "pull"
    CHANGE = "change"


def failure(
    request: Request, subject: str, *, status: int, said: str | None, body: str = ""
) -> HerdbookError:
    """Return the error for an answer that is none.

    Args:
        request: What was asked for.
        subject: The model, or the server where it was about no model.
        status: The HTTP status; 200 for an error inside a stream.
        said: The server's own sentence; None if the body was not Ollama's.
        body: The body as it came, where it was not Ollama's.
    """
    if status in {401, 403}:
        return RefusedError(subject, raw=said or body or f"HTTP {status}")
    if said is None:
        return BadAnswerError(subject, raw=f"HTTP {status} {body}".strip())
    if status == 503:
        return BusyServerError(subject, raw=said)
    for pattern, make in (*_ANY.get(status, ()), *_RULES[request]):
        if pattern.search(said):
            return make(subject, said)
    return _OTHERWISE[request](subject, said)


def _pattern(*texts: str) -> re.Pattern[str]:
    return re.compile("|".join(texts), re.IGNORECASE)


def _invalid_name(subject: str, said: str) -> HerdbookError:
    return InvalidNameError(subject, reason=f"the server says: {said}")


def _invalid_request(subject: str, said: str) -> HerdbookError:
    return InvalidConfigurationError(
        subject, f"is asked for with what the server does not take: {said}"
    )


def _not_found(subject: str, said: str) -> HerdbookError:
    return ModelNotFoundError(subject, raw=said)


def _incapable(subject: str, said: str) -> HerdbookError:
    found = re.search(r"does not support (\w+)", said)
    return CapabilityMissingError(
        subject, capability=found[1] if found else "that", raw=said
    )


def _no_generate(subject: str, said: str) -> HerdbookError:
    return CapabilityMissingError(subject, capability="generate", raw=said)


def _plain(kind: type[OllamaError]) -> Failure:
    return lambda subject, said: kind(subject, raw=said)


def _not_loaded(why: LoadFailure) -> Failure:
    return lambda subject, said: LoadFailedError(subject, failure=why, raw=said)


def _refused(why: PullRefusal) -> Failure:
    return lambda subject, said: PullRefusedError(subject, refusal=why, raw=said)


_NAMES: Final = (
    _pattern(
        "invalid model name",
        "invalid model path",
        '(name|source|destination) ".*" is invalid',
        "model is required",
        "use either :local or :cloud",
    ),
    _invalid_name,
)
_REQUESTS: Final = (
    _pattern(
        "time: (missing unit|invalid|unknown unit)",
        "unsupported type:",
        "^json: ",
        'option ".*" must be of type',
        "neither 'from' or 'files'",
    ),
    _invalid_request,
)

_DAMAGE: Final = (
    _pattern("^(unexpected )?EOF$", "blobs.*no such file", "^invalid character"),
    _plain(ModelDamagedError),
)

_ANY: Final[dict[int, Rules]] = {
    400: (
        _NAMES,
        _REQUESTS,
        (_pattern("image generation models"), _no_generate),
        (_pattern("does not support"), _incapable),
    ),
    404: ((_pattern("not found"), _not_found),),
    500: (_NAMES, _REQUESTS, _DAMAGE),
    501: ((_pattern("does not support"), _incapable),),
}
"""What means the same whatever was asked for, by status."""

# The list of texts is the server's own (llm/status.go), and older servers' two.
_OUT_OF_MEMORY: Final = _pattern(
    "out[ -]of[ -](device[ -])?memory",
    "(cuda|hip)Malloc failed",
    "failed to allocate",
    "allocation failed",
    "(not enough|insufficient) memory",
    "vk_error_out_of_device_memory",
    "erroroutof(device|host)?memory",
    "requires more system memory",
    "unable to load full model on GPU",
)

# The order counts: a reason may stand behind the number of tries that it took.
_PULL: Final[Rules] = (
    (
        _pattern("no space left on device", "not enough space", "quota exceeded"),
        _plain(DiskFullError),
    ),
    (_pattern("digest mismatch"), _plain(DigestMismatchError)),
    (_pattern("context canceled"), _plain(PullCancelledError)),
    (_pattern("file does not exist"), _refused(PullRefusal.NOT_IN_REGISTRY)),
    (
        _pattern(r"\b412: ", "requires a newer version"),
        _refused(PullRefusal.SERVER_TOO_OLD),
    ),
    (
        _pattern(
            r"manifest: 40[13]: ",
            "unauthorized",
            "access denied",
            "realm host",
            "unsupported protocol scheme",
        ),
        _refused(PullRefusal.AUTHENTICATION),
    ),
    (_pattern(r"manifest: 429: ", "rate limit"), _refused(PullRefusal.RATE_LIMIT)),
    (
        _pattern(r"manifest: 5\d\d: ", "max retries exceeded"),
        _refused(PullRefusal.REGISTRY_FAILED),
    ),
    (
        _pattern(
            "dial tcp",
            r"\bEOF\b",
            "connection re(fused|set)",
            "time(d )?out",
            "deadline exceeded",
            "x509",
            "tls:",
            "no such host",
            "HTTP response to HTTPS client",
        ),
        _refused(PullRefusal.REGISTRY_UNREACHABLE),
    ),
)

_RULES: Final[dict[Request, Rules]] = {
    Request.LOOK: (),
    Request.CHANGE: (),
    Request.LOAD: (
        (_OUT_OF_MEMORY, _not_loaded(LoadFailure.OUT_OF_MEMORY)),
        (_pattern("timed out waiting for"), _not_loaded(LoadFailure.STALLED)),
        (_pattern("may be incompatible"), _not_loaded(LoadFailure.INCOMPATIBLE)),
        (
            _pattern("has terminated", "process no longer running"),
            _not_loaded(LoadFailure.PROCESS_DIED),
        ),
    ),
    Request.PULL: _PULL,
}

_OTHERWISE: Final[dict[Request, Failure]] = {
    Request.LOOK: _plain(ServerFailedError),
    Request.CHANGE: _plain(ServerFailedError),
    Request.LOAD: _not_loaded(LoadFailure.OTHER),
    Request.PULL: _refused(PullRefusal.OTHER),
}
