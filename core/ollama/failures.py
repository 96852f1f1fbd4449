"""Translate the server's error messages into Herdbook errors.

Ollama has no error codes, only a status and a sentence that differs by version and
endpoint. Each rule is a pattern for the common part of these sentences. The first
matching rule decides, and the error's ``raw`` keeps the sentence.
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
from herdbook.core.ollama.bounds import printable

Failure: TypeAlias = Callable[[str, str], HerdbookError]
"""Creates an error from a subject and the server's message."""

Rules: TypeAlias = Sequence[tuple[str, Failure]]
"""Patterns without regard to case, each compiled by its first search: most runs meet
no failure, and to compile all of them takes 2% of the start of ``herdbook ls``."""

TOO_MANY_REQUESTS: Final = 429


class Request(StrEnum):
    """The kind of a request: the same message means different things for each."""

    READ = "read"
    LOAD = "load"
    PULL = "pull"
    CHANGE = "change"


def failure(
    request: Request, subject: str, *, status: int, message: str | None, body: str = ""
) -> HerdbookError:
    """Return the error for a failed request.

    Args:
        request: The kind of the request.
        subject: The model, or the server if the request was not about a model.
        status: The HTTP status; 200 for an error inside a stream.
        message: The server's error message; None if the body was not Ollama's.
        body: The start of the body, if it was not Ollama's.
    """
    if status in {401, 403, 407}:
        return _not_allowed(subject, status, message, body)
    if status == TOO_MANY_REQUESTS:
        return _too_many_requests(subject, message or body)
    if message is None and status in _GATEWAY:
        return _gateway(subject, status, body)
    if message is None:
        return BadAnswerError(
            subject, raw=f"HTTP {status} {_beyond(status, body)}".strip()
        )
    if status == 503:
        return BusyServerError(subject, raw=message)
    for pattern, make in (*_ANY.get(status, ()), *_RULES[request]):
        if re.search(pattern, message, re.IGNORECASE):
            return make(subject, message)
    return _OTHERWISE[request](subject, message)


def _beyond(status: int, body: str) -> str:
    """Return a body without the status, which titles of proxies begin with."""
    return body.removeprefix(str(status)).lstrip(" :-")


def _not_allowed(
    subject: str, status: int, message: str | None, body: str
) -> HerdbookError:
    """Return the error for a refused request, with the remedy that the answer shows."""
    raw = message or body or f"HTTP {status}"
    if message is not None and re.search(_CLOUD, message, re.IGNORECASE):
        return RefusedError(subject, raw=raw, advice=_CLOUD_REMEDY)
    if status == 403 and not body.strip():  # from Ollama itself, whose body is empty
        return RefusedError(subject, raw=raw)
    if status == 403:
        return RefusedError(subject, raw=raw, advice=_CREDENTIALS_REMEDY)
    raw = message or _beyond(status, body)
    if status == 407:
        problem = "requires authentication for a proxy (HTTP 407): {raw}"
        return RefusedError(subject, raw=raw, problem=problem, advice=_PROXY_REMEDY)
    problem = f"requires authentication (HTTP {status}): {{raw}}"
    return RefusedError(subject, raw=raw, problem=problem, advice=_CREDENTIALS_REMEDY)


def _too_many_requests(subject: str, reason: str) -> HerdbookError:
    """Return the error for a rate limit, which is a proxy's: Ollama has none."""
    return BusyServerError(
        subject,
        raw=printable(reason, 200) or "HTTP 429",
        problem="has received too many requests (HTTP 429): {raw}",
        advice="Try again later, or raise the limit of the proxy in front of Ollama",
    )


_GATEWAY: Final = frozenset({502, 503, 504})
"""Statuses of a proxy that reaches no server; Ollama sends 503 with a message."""


def _gateway(subject: str, status: int, body: str) -> HerdbookError:
    return BadAnswerError(
        subject,
        raw=f"HTTP {status} {_beyond(status, printable(body, 200))}".strip(),
        problem="is a proxy that cannot reach its server: {raw}",
        advice="Check that Ollama is running behind it and that it forwards to the "
        "right address",
    )


_CLOUD: Final = "cloud|signin|sign in"
_CLOUD_REMEDY: Final = (
    "Enable the cloud on the server, or sign in there with 'ollama signin'"
)
_PROXY_REMEDY: Final = "Use the server's own address: a forward proxy is not supported"
_CREDENTIALS_REMEDY: Final = (
    "Set the right user and password in OLLAMA_HOST (http://user:password@host:port), "
    "or the right API key in OLLAMA_API_KEY or, for an added node, in the variable "
    "that its key_env names"
)


def _any_of(*patterns: str) -> str:
    return "|".join(patterns)


def _invalid_name(subject: str, message: str) -> HerdbookError:
    return InvalidNameError(subject, reason=f"the server says: {message}")


def _invalid_request(subject: str, message: str) -> HerdbookError:
    return InvalidConfigurationError(
        subject, f"was requested with a value the server does not accept: {message}"
    )


def _not_found(subject: str, message: str) -> HerdbookError:
    return ModelNotFoundError(subject, raw=message)


def _incapable(subject: str, message: str) -> HerdbookError:
    found = re.search(r"does not support (\w+)", message)
    return CapabilityMissingError(
        subject, capability=found[1] if found else "that", raw=message
    )


def _no_generate(subject: str, message: str) -> HerdbookError:
    return CapabilityMissingError(subject, capability="generate", raw=message)


def _plain(kind: type[OllamaError]) -> Failure:
    return lambda subject, message: kind(subject, raw=message)


def _not_loaded(why: LoadFailure) -> Failure:
    return lambda subject, message: LoadFailedError(subject, failure=why, raw=message)


def _refused(why: PullRefusal) -> Failure:
    return lambda subject, message: PullRefusedError(subject, refusal=why, raw=message)


_NAMES: Final = (
    _any_of(
        "invalid model name",
        "invalid model path",
        '(name|source|destination) ".*" is invalid',
        "model is required",
        "use either :local or :cloud",
    ),
    _invalid_name,
)
_REQUESTS: Final = (
    _any_of(
        "time: (missing unit|invalid|unknown unit)",
        "unsupported type:",
        "^json: ",
        'option ".*" must be of type',
        "neither 'from' or 'files'",
    ),
    _invalid_request,
)

_DAMAGE: Final = (
    _any_of("^(unexpected )?EOF$", "blobs.*no such file", "^invalid character"),
    _plain(ModelDamagedError),
)

_ANY: Final[dict[int, Rules]] = {
    400: (
        _NAMES,
        _REQUESTS,
        ("image generation models", _no_generate),
        ("does not support", _incapable),
    ),
    404: (("not found", _not_found),),
    500: (_NAMES, _REQUESTS, _DAMAGE),
    501: (("does not support", _incapable),),
}
"""Rules for all kinds of request, by status."""

# The texts come from the server (llm/status.go), plus two of older servers.
_OUT_OF_MEMORY: Final = _any_of(
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

# The order matters: a message can contain a reason and the number of retries.
_PULL: Final[Rules] = (
    (
        _any_of("no space left on device", "not enough space", "quota exceeded"),
        _plain(DiskFullError),
    ),
    ("digest mismatch", _plain(DigestMismatchError)),
    ("context canceled", _plain(PullCancelledError)),
    ("file does not exist", _refused(PullRefusal.NOT_IN_REGISTRY)),
    (
        _any_of(r"\b412: ", "requires a newer version"),
        _refused(PullRefusal.SERVER_TOO_OLD),
    ),
    (
        _any_of(
            r"manifest: 40[13]: ",
            "unauthorized",
            "access denied",
            "realm host",
            "unsupported protocol scheme",
        ),
        _refused(PullRefusal.AUTHENTICATION),
    ),
    (_any_of(r"manifest: 429: ", "rate limit"), _refused(PullRefusal.RATE_LIMIT)),
    (
        _any_of(r"manifest: 5\d\d: ", "max retries exceeded"),
        _refused(PullRefusal.REGISTRY_FAILED),
    ),
    (
        _any_of(
            "HTTP response to HTTPS client",
            r"https://[^ \"]+:\d+/[^\"]*\"?: EOF",
            "first record does not look like a TLS handshake",
        ),
        _refused(PullRefusal.REGISTRY_WITHOUT_TLS),
    ),
    (
        _any_of(
            "dial tcp",
            r"\bEOF\b",
            "connection re(fused|set)",
            "time(d )?out",
            "deadline exceeded",
            "x509",
            "tls:",
            "no such host",
        ),
        _refused(PullRefusal.REGISTRY_UNREACHABLE),
    ),
)

_RULES: Final[dict[Request, Rules]] = {
    Request.READ: (),
    Request.CHANGE: (),
    Request.LOAD: (
        (_OUT_OF_MEMORY, _not_loaded(LoadFailure.OUT_OF_MEMORY)),
        ("timed out waiting for", _not_loaded(LoadFailure.STALLED)),
        ("may be incompatible", _not_loaded(LoadFailure.INCOMPATIBLE)),
        (
            _any_of("has terminated", "process no longer running"),
            _not_loaded(LoadFailure.PROCESS_DIED),
        ),
    ),
    Request.PULL: _PULL,
}

_OTHERWISE: Final[dict[Request, Failure]] = {
    Request.READ: _plain(ServerFailedError),
    Request.CHANGE: _plain(ServerFailedError),
    Request.LOAD: _not_loaded(LoadFailure.OTHER),
    Request.PULL: _refused(PullRefusal.OTHER),
}
