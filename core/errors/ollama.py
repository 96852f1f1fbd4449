"""Errors of the Ollama server: it failed, refused or is unreachable."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Final

from herdbook.events.errors import HerdbookError, shortened


class OllamaError(HerdbookError):
    """The server failed, refused or is unreachable. Raised as one of its subclasses.

    Attributes:
        kind: The stable word that events record: the code of the class, unless the
            class distinguishes several causes.
        raw: The text of the server or the connection, unchanged; may be empty.
    """

    code = "ollama"
    problem: ClassVar[str] = "failed: {raw}"
    """The problem, as a clause that follows the subject."""
    advice: ClassVar[str] = ""
    """The remedy; may contain ``{subject}``."""

    def __init__(
        self,
        subject: str,
        *,
        raw: str = "",
        problem: str | None = None,
        advice: str | None = None,
    ) -> None:
        self.kind: str = self.code
        self.raw = raw
        state = (problem or self.problem).format(
            raw=shortened(" ".join(raw.split()), 300)
        )
        remedy = (self.advice if advice is None else advice).format(subject=subject)
        super().__init__(subject, state.removesuffix(": ").removesuffix(" ()"), remedy)


INTERNAL_ERROR = "internal_error"
"""The kind that events record for an exception outside this tree."""


def kind_of(error: Exception) -> str:
    """Return the stable word that an event records for an error."""
    if isinstance(error, OllamaError):
        return error.kind
    return error.code if isinstance(error, HerdbookError) else INTERNAL_ERROR


def message_of(error: Exception) -> str:
    """Return the text that an event records for an error."""
    if isinstance(error, HerdbookError):
        return str(error)
    return f"{type(error).__name__}: {error}"[:500]


class NodeUnreachableError(OllamaError):
    """Nothing answers at the address of the server, or the connection broke."""

    code = "node_unreachable"
    problem = "cannot be reached: {raw}"
    advice = (
        "Start it with 'ollama serve', or correct its address in OLLAMA_HOST (for an "
        "added node, with 'herdbook node move')"
    )


class NodeTimeoutError(OllamaError):
    """The server accepted the request and did not answer in time.

    Attributes:
        seconds: How long Herdbook waited.
    """

    code = "node_timeout"
    advice = "It may be starting or overloaded. Try again"

    def __init__(self, subject: str, *, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(subject, problem=f"did not answer within {seconds:g} s")


class BadAnswerError(OllamaError):
    """The answer does not come from Ollama, but from a proxy or another program."""

    code = "bad_answer"
    problem = "sent an answer that cannot be read: {raw}"
    advice = (
        "Check that the address is that of Ollama, not of a proxy or another program"
    )


class RefusedError(OllamaError):
    """The server refuses the request (host, origin, proxy), or the cloud is off."""

    code = "refused"
    problem = "was refused by the server: {raw}"
    advice = (
        "Ollama refuses foreign Host and Origin headers unless it listens on all "
        "interfaces. It also refuses cloud models if the cloud is disabled"
    )


class BusyServerError(OllamaError):
    """The request queue of the server is full."""

    code = "server_busy"
    problem = "could not be queued: the server's request queue is full"
    advice = "Try again, or raise OLLAMA_MAX_QUEUE on the server"


class ServerFailedError(OllamaError):
    """Any other failure of the server."""

    code = "server_failed"
    problem = "failed on the server: {raw}"
    advice = "See the server's log"


class ModelDamagedError(OllamaError):
    """Weights or manifest are missing or damaged on the server's disk."""

    code = "model_damaged"
    problem = "is damaged on the server's disk"
    advice = "Pull it again"


class CapabilityMissingError(OllamaError):
    """The model lacks the capability that was requested.

    Attributes:
        capability: The server's word for it, such as ``generate``.
    """

    code = "capability_missing"
    advice = "Use a model with that capability"

    def __init__(self, subject: str, *, capability: str, raw: str = "") -> None:
        self.capability = capability
        super().__init__(subject, raw=raw, problem=f"does not support {capability}")


class CloudModelError(OllamaError):
    """The model runs in the cloud and cannot be loaded or unloaded here."""

    code = "elsewhere"
    problem = "is a cloud model and is never loaded into the memory of this server"


class LoadFailure(StrEnum):
    """Why a load failed: the kind that ``LoadFailed`` records."""

    OUT_OF_MEMORY = "out_of_memory"
    STALLED = "load_stalled"
    PROCESS_DIED = "process_died"
    INCOMPATIBLE = "incompatible"
    OTHER = "load_failed"


_LOAD_FAILURES: Final = {
    LoadFailure.OUT_OF_MEMORY: (
        "cannot be loaded: the server does not have enough memory",
        "Unload other models, or set a smaller num_ctx",
    ),
    LoadFailure.STALLED: (
        "cannot be loaded: its process did not start in time",
        "Try again, or raise OLLAMA_LOAD_TIMEOUT on the server",
    ),
    LoadFailure.PROCESS_DIED: (
        "cannot be loaded: {raw}",
        "See the server's log",
    ),
    LoadFailure.INCOMPATIBLE: (
        "cannot be loaded: this version of Ollama does not support its file",
        "Update Ollama, or pull the model again",
    ),
    LoadFailure.OTHER: ("cannot be loaded: {raw}", "See the server's log"),
}


class LoadFailedError(OllamaError):
    """The server could not load the model into memory.

    Attributes:
        failure: Why.
    """

    code = "load_failed"

    def __init__(self, subject: str, *, failure: LoadFailure, raw: str = "") -> None:
        problem, advice = _LOAD_FAILURES[failure]
        super().__init__(subject, raw=raw, problem=problem, advice=advice)
        self.failure = failure
        self.kind = failure.value


class PullError(OllamaError):
    """A pull failed. Raised as one of its subclasses."""

    code = "pull_failed"
    problem = "cannot be pulled: {raw}"


class PullRefusal(StrEnum):
    """Why the registry refused a model: the kind that ``PullFailed`` records.

    ``REGISTRY_UNREACHABLE``, ``REGISTRY_FAILED`` and ``RATE_LIMIT`` may pass with time;
    the others are permanent.
    """

    AUTHENTICATION = "authentication"
    RATE_LIMIT = "rate_limit"
    SERVER_TOO_OLD = "server_too_old"
    NOT_IN_REGISTRY = "not_in_registry"
    REGISTRY_UNREACHABLE = "registry_unreachable"
    REGISTRY_WITHOUT_TLS = "registry_without_tls"
    REGISTRY_FAILED = "registry_failed"
    OTHER = "pull_refused"


_PULL_REFUSALS: Final = {
    PullRefusal.AUTHENTICATION: (
        "cannot be pulled: the registry denies access to this server",
        "Add the server's ~/.ollama/id_ed25519.pub to your account at the registry",
    ),
    PullRefusal.RATE_LIMIT: (
        "cannot be pulled: the registry is limiting requests (rate limit)",
        "Try again later",
    ),
    PullRefusal.SERVER_TOO_OLD: (
        "cannot be pulled: it needs a newer version of Ollama",
        "Update the server: https://ollama.com/download",
    ),
    PullRefusal.NOT_IN_REGISTRY: (
        "cannot be pulled: the registry does not have it",
        "Check the name and the tag at https://ollama.com/search",
    ),
    PullRefusal.REGISTRY_UNREACHABLE: (
        "cannot be pulled: the server cannot reach the registry ({raw})",
        "Check the server's network, then pull it again",
    ),
    PullRefusal.REGISTRY_WITHOUT_TLS: (
        "cannot be pulled: the registry does not answer with TLS ({raw})",
        "If it has no TLS, allow that (API: insecure, command line: --insecure)",
    ),
    PullRefusal.REGISTRY_FAILED: (
        "cannot be pulled: the registry failed ({raw})",
        "Try again later",
    ),
    PullRefusal.OTHER: ("cannot be pulled: {raw}", ""),
}


class PullRefusedError(PullError):
    """The registry refused the model, or could not be reached.

    Attributes:
        refusal: Why.
    """

    code = "pull_refused"

    def __init__(
        self,
        subject: str,
        *,
        refusal: PullRefusal,
        raw: str = "",
    ) -> None:
        problem, remedy = _PULL_REFUSALS[refusal]
        host, _, path = subject.partition("/")
        if refusal is PullRefusal.NOT_IN_REGISTRY and "/" in path:
            # An address of three parts begins with the host of the registry.
            remedy = f"Check the name and the tag at the registry {host}"
        super().__init__(subject, raw=raw, problem=problem, advice=remedy)
        self.refusal = refusal
        self.kind = refusal.value


class DiskFullError(PullError):
    """The server's disk is full; the downloaded part stays there."""

    code = "disk_full"
    problem = "cannot be pulled: the server's disk is full"
    advice = "Free space on the server, then pull it again"


class DigestMismatchError(PullError):
    """The data does not match its digest; the server has discarded it."""

    code = "digest_mismatch"
    problem = "cannot be pulled: the data does not match its digest"
    advice = "Pull it again"


class StalledError(PullError):
    """No data arrived for too long; the downloaded part stays on the server.

    Attributes:
        seconds: How long no data arrived.
    """

    code = "stalled"
    advice = "Pull it again to resume"

    def __init__(self, subject: str, *, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(
            subject, problem=f"cannot be pulled: no data arrived for {seconds:g} s"
        )


class PullCutError(PullError):
    """The stream ended without ``success``: the server or the connection died."""

    code = "pull_cut"
    problem = "cannot be pulled: the connection to the server broke ({raw})"
    advice = "Check that the server is running, then pull it again"


class PullCancelledError(PullError):
    """The server cancelled the download.

    A pull right after a cancelled one can join the download that is being cancelled.
    Asking again resumes it.
    """

    code = "pull_cancelled"
    problem = "cannot be pulled: the server cancelled the download"
    advice = "Try again"
