"""The errors about models and about Ollama: the tree of ``events/errors.py``, whole.

    HerdbookError
    ├── CallerError                    the caller asked for what cannot be
    │   ├── IllegalTransitionError     not allowed in the model's state
    │   ├── WrongStreamError           an event in a stream of another kind
    │   ├── InvalidNameError           no name of a model
    │   ├── InvalidAddressError        no address of a server
    │   ├── InvalidConfigurationError  no value of that setting
    │   ├── InvalidCatalogueError      no catalogue
    │   ├── NodeAddressError           the log knows that node at another address
    │   ├── InvalidDesiredError        no desired set of models
    │   ├── UnknownRoleError           no role of that name
    │   ├── ModelNotFoundError         the model is not there
    │   ├── OperationEndedError        cancelled, or its manager closed
    │   └── BusyError                  something else is at work on the model
    ├── OllamaError                    the server could not, would not, or is away
    │   ├── NodeUnreachableError       nothing answers there
    │   ├── NodeTimeoutError           it did not answer in time
    │   ├── BadAnswerError             what answered is not what Ollama would say
    │   ├── RefusedError               it does not talk to us, or not about this
    │   ├── BusyServerError            its queue is full
    │   ├── ServerFailedError          an error that has no class of its own
    │   ├── ModelDamagedError          weights or manifest are gone or torn
    │   ├── CapabilityMissingError     the model cannot do that
    │   ├── CloudModelError            a cloud model: nothing to load here
    │   ├── LoadFailedError            out of memory, stalled, died …
    │   └── PullError                  the model could not be fetched
    │       ├── PullRefusedError       by the registry, or on the way there
    │       ├── DiskFullError          no space on the server's disk
    │       ├── DigestMismatchError    the bytes are not the promised ones
    │       ├── StalledError           no byte came any more
    │       ├── PullCutError           the stream ended without ``success``
    │       └── PullCancelledError     the server gave the download up
    ├── ResourceExhaustedError         this process has too many open files
    └── StoreError                     the log could not do its part

A message is composed here from typed fields: subject, state, remedy. ``kind`` is
the stable word that an event records for it; ``raw`` is what the server said, to
the letter.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Final

from herdbook.events.errors import (
    CallerError,
    ConflictError,
    CorruptLogError,
    EventIdConflictError,
    HerdbookError,
    IllegalTransitionError,
    NewerSchemaError,
    NotALogError,
    OutcomeUnknownError,
    StoreClosedError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
    UndecodableEventError,
    UnknownEventTypeError,
    WrongExpectedVersionError,
    WrongStreamError,
)
from herdbook.events.file_descriptors import ResourceExhaustedError

__all__ = [
    "BadAnswerError",
    "BusyError",
    "BusyServerError",
    "CallerError",
    "CapabilityMissingError",
    "CloudModelError",
    "ConflictError",
    "CorruptLogError",
    "DigestMismatchError",
    "DiskFullError",
    "EventIdConflictError",
    "HerdbookError",
    "IllegalTransitionError",
    "InvalidAddressError",
    "InvalidCatalogueError",
    "InvalidConfigurationError",
    "InvalidDesiredError",
    "InvalidNameError",
    "LoadFailedError",
    "LoadFailure",
    "ModelDamagedError",
    "ModelNotFoundError",
    "NewerSchemaError",
    "NodeAddressError",
    "NodeTimeoutError",
    "NodeUnreachableError",
    "NotALogError",
    "OllamaError",
    "OperationEndedError",
    "OutcomeUnknownError",
    "PullCancelledError",
    "PullCutError",
    "PullError",
    "PullRefusal",
    "PullRefusedError",
    "RefusedError",
    "ResourceExhaustedError",
    "ServerFailedError",
    "StalledError",
    "StoreClosedError",
    "StoreError",
    "StoreFullError",
    "StoreUnavailableError",
    "UndecodableEventError",
    "UnknownEventTypeError",
    "UnknownRoleError",
    "WrongExpectedVersionError",
    "WrongStreamError",
    "kind_of",
]


class InvalidNameError(CallerError):
    """What was given is no name of a model.

    Attributes:
        name: What was given.
    """

    code = "invalid_name"

    def __init__(self, name: str, *, reason: str) -> None:
        self.name = name
        super().__init__(
            f"{_short(name)!r}",
            f"is no name of a model: {reason}",
            "Write it as model:tag, with letters, digits, '.', '_' and '-'",
        )


class InvalidAddressError(CallerError):
    """Nobody can connect to what was given as the server's address."""

    code = "invalid_address"

    def __init__(self, address: str, *, reason: str) -> None:
        super().__init__(
            f"{_short(address)!r}",
            f"is no address of an Ollama server: {reason}",
            "Write it as http://host:port, as OLLAMA_HOST has it",
        )


class NodeAddressError(CallerError):
    """The log knows a node at another address: its models may be other models.

    Attributes:
        known: The address in the log.
        given: The address that was asked for.
    """

    code = "node_address"

    def __init__(self, node: str, *, known: str, given: str) -> None:
        self.known = known
        self.given = given
        super().__init__(
            f"node {node}",
            f"is {known} in this log, not {given}",
            "If it is another server, give it a name or a log of its own: --node NAME "
            "or --db FILE. If the server moved: herdbook node move",
        )


class InvalidConfigurationError(CallerError):
    """A setting does not exist, or cannot have that value."""

    code = "invalid_configuration"


class InvalidCatalogueError(CallerError):
    """A catalogue that cannot be used; nothing of it was applied."""

    code = "invalid_catalogue"


class InvalidDesiredError(CallerError):
    """A desired set that cannot be used; nothing of it was applied."""

    code = "invalid_desired"


class OperationEndedError(CallerError):
    """The operation was cancelled, or its manager was closed."""

    code = "cancelled"


class UnknownRoleError(CallerError):
    """There is no role of that name.

    Attributes:
        role: What was given.
    """

    code = "unknown_role"

    def __init__(self, role: str, *, known: tuple[str, ...]) -> None:
        self.role = role
        super().__init__(
            f"{_short(role)!r}", "is no role", f"The roles are {', '.join(known)}"
        )


class ModelNotFoundError(CallerError):
    """The model is not where it was looked for.

    Attributes:
        name: The model.
        where: A node's name, ``the server`` or ``the log``.
        raw: What the server said, if it was asked.
    """

    code = "model_not_found"

    def __init__(self, name: str, *, where: str = "the server", raw: str = "") -> None:
        self.name = name
        self.where = where
        self.raw = raw
        super().__init__(
            name, f"is not on {where}", f"To fetch it: herdbook pull {name}"
        )


class BusyError(CallerError):
    """Another operation, or another instance, is at work on the model."""

    code = "busy"


class OllamaError(HerdbookError):
    """The server could not, would not, or is away. Raised as one of its kinds.

    Attributes:
        kind: The stable word that an event records; the class's code, unless the
            class tells several causes apart.
        raw: What the server or the connection said, to the letter; may be empty.
    """

    code = "ollama"
    says: ClassVar[str] = "failed: {raw}"
    """The state, as a clause that follows the subject."""
    advises: ClassVar[str] = ""
    """The remedy, in which ``{subject}`` may stand."""

    def __init__(
        self,
        subject: str,
        *,
        raw: str = "",
        says: str | None = None,
        advises: str | None = None,
    ) -> None:
        self.kind: str = self.code
        self.raw = raw
        state = (says or self.says).format(raw=_short(" ".join(raw.split()), 300))
        remedy = (self.advises if advises is None else advises).format(subject=subject)
        super().__init__(subject, state.removesuffix(": "), remedy)


INTERNAL_ERROR = "internal_error"
"""What an event records as the kind of an exception that is none of these errors."""


def kind_of(error: Exception) -> str:
    """Return the stable word that an event records for an error."""
    if isinstance(error, OllamaError):
        return error.kind
    return error.code if isinstance(error, HerdbookError) else INTERNAL_ERROR


def message_of(error: Exception) -> str:
    """Return what an event records as the text of an error."""
    if isinstance(error, HerdbookError):
        return str(error)
    return f"{type(error).__name__}: {error}"[:500]


class NodeUnreachableError(OllamaError):
    """Nothing answers at the server's address, or it broke off."""

    code = "node_unreachable"
    says = "cannot be reached: {raw}"
    advises = "Start it with 'ollama serve', or set OLLAMA_HOST to where it is"


class NodeTimeoutError(OllamaError):
    """The server took the question and did not answer in time.

    Attributes:
        seconds: How long it was waited for.
    """

    code = "node_timeout"
    advises = "It may be starting or overloaded: try again"

    def __init__(self, subject: str, *, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(subject, says=f"did not answer within {seconds:g} s")


class BadAnswerError(OllamaError):
    """What answered does not speak as Ollama does: a proxy, or another program."""

    code = "bad_answer"
    says = "gave an answer that cannot be read: {raw}"
    advises = "See that the address is Ollama's own, with no other program between"


class RefusedError(OllamaError):
    """The server does not talk to us (host, origin, proxy), or the cloud is off."""

    code = "refused"
    says = "is refused by the server: {raw}"
    advises = (
        "Ollama refuses foreign Host and Origin headers unless it listens on all "
        "interfaces, and cloud models where the cloud is disabled"
    )


class BusyServerError(OllamaError):
    """The server's queue of requests is full."""

    code = "server_busy"
    says = "has to wait: the server's queue is full"
    advises = "Try again in a moment, or raise OLLAMA_MAX_QUEUE on the server"


class ServerFailedError(OllamaError):
    """The server failed in a way that has no class of its own."""

    code = "server_failed"
    says = "failed on the server: {raw}"
    advises = "The server's own log says more"


class ModelDamagedError(OllamaError):
    """The model's weights or its manifest are gone or torn on the server's disk."""

    code = "model_damaged"
    says = "is damaged on the server's disk"
    advises = "Fetch it again: herdbook pull {subject}"


class CapabilityMissingError(OllamaError):
    """The model cannot do what it was asked for.

    Attributes:
        capability: The server's word for it, such as ``generate``.
    """

    code = "capability_missing"
    advises = "To see what it can do: herdbook show {subject}"

    def __init__(self, subject: str, *, capability: str, raw: str = "") -> None:
        self.capability = capability
        super().__init__(subject, raw=raw, says=f"does not support {capability}")


class CloudModelError(OllamaError):
    """The model runs at a cloud's server: there is nothing here to load or unload."""

    code = "elsewhere"
    says = "is a cloud model: it is never in this server's memory"


class LoadFailure(StrEnum):
    """Why a model could not be loaded: what ``LoadFailed`` records as its kind."""

    OUT_OF_MEMORY = "out_of_memory"
    STALLED = "load_stalled"
    PROCESS_DIED = "process_died"
    INCOMPATIBLE = "incompatible"
    OTHER = "load_failed"


_LOAD_FAILURES: Final = {
    LoadFailure.OUT_OF_MEMORY: (
        "cannot be loaded: the server's memory does not suffice",
        "Unload other models, or give it a smaller num_ctx",
    ),
    LoadFailure.STALLED: (
        "cannot be loaded: the server waited in vain for its process to start",
        "Try again, or raise OLLAMA_LOAD_TIMEOUT on the server",
    ),
    LoadFailure.PROCESS_DIED: (
        "cannot be loaded: {raw}",
        "The server's own log says more",
    ),
    LoadFailure.INCOMPATIBLE: (
        "cannot be loaded: its file and this version of Ollama do not fit",
        "Fetch it again: herdbook pull {subject}; or update Ollama",
    ),
    LoadFailure.OTHER: ("cannot be loaded: {raw}", "The server's own log says more"),
}


class LoadFailedError(OllamaError):
    """The server could not load the model into memory.

    Attributes:
        failure: Why.
    """

    code = "load_failed"

    def __init__(self, subject: str, *, failure: LoadFailure, raw: str = "") -> None:
        says, advises = _LOAD_FAILURES[failure]
        super().__init__(subject, raw=raw, says=says, advises=advises)
        self.failure = failure
        self.kind = failure.value


class PullError(OllamaError):
    """A pull ended without success. Raised as one of its kinds."""

    code = "pull_failed"
    says = "cannot be fetched: {raw}"


class PullRefusal(StrEnum):
    """Why the registry did not give a model: what ``PullFailed`` records as its kind.

    ``REGISTRY_UNREACHABLE`` and ``REGISTRY_FAILED`` may pass by themselves,
    ``RATE_LIMIT`` with time; the others stay as they are.
    """

    AUTHENTICATION = "authentication"
    RATE_LIMIT = "rate_limit"
    SERVER_TOO_OLD = "server_too_old"
    NOT_IN_REGISTRY = "not_in_registry"
    REGISTRY_UNREACHABLE = "registry_unreachable"
    REGISTRY_FAILED = "registry_failed"
    OTHER = "pull_refused"


_PULL_REFUSALS: Final = {
    PullRefusal.AUTHENTICATION: (
        "cannot be fetched: the registry does not let this server in",
        "Add the server's ~/.ollama/id_ed25519.pub to your account there",
    ),
    PullRefusal.RATE_LIMIT: (
        "cannot be fetched: the registry wants fewer requests",
        "Try again later",
    ),
    PullRefusal.SERVER_TOO_OLD: (
        "cannot be fetched: it needs a newer version of Ollama",
        "Update the server: https://ollama.com/download",
    ),
    PullRefusal.NOT_IN_REGISTRY: (
        "cannot be fetched: the registry does not have it",
        "Check the name and the tag at https://ollama.com/search",
    ),
    PullRefusal.REGISTRY_UNREACHABLE: (
        "cannot be fetched: the server does not reach the registry: {raw}",
        "See to the server's network, then: herdbook pull {subject}",
    ),
    PullRefusal.REGISTRY_FAILED: (
        "cannot be fetched: the registry failed: {raw}",
        "Try again later: herdbook pull {subject}",
    ),
    PullRefusal.OTHER: ("cannot be fetched: {raw}", ""),
}


class PullRefusedError(PullError):
    """The registry, or the way there, did not give the model.

    Attributes:
        refusal: Why.
    """

    code = "pull_refused"

    def __init__(self, subject: str, *, refusal: PullRefusal, raw: str = "") -> None:
        says, advises = _PULL_REFUSALS[refusal]
        super().__init__(subject, raw=raw, says=says, advises=advises)
        self.refusal = refusal
        self.kind = refusal.value


class DiskFullError(PullError):
    """No space is left on the server's disk; what was fetched stays there."""

    code = "disk_full"
    says = "cannot be fetched: no space is left on the server's disk"
    advises = "Free some there, then: herdbook pull {subject}"


class DigestMismatchError(PullError):
    """The bytes are not the promised ones; the server has thrown them away."""

    code = "digest_mismatch"
    says = "cannot be fetched: what came is not what the registry promised"
    advises = "Fetch it again, all of it: herdbook pull {subject}"


class StalledError(PullError):
    """No byte came any more; what was fetched stays on the server.

    Attributes:
        seconds: How long none came.
    """

    code = "stalled"
    advises = "Go on from there: herdbook pull {subject}"

    def __init__(self, subject: str, *, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(
            subject, says=f"cannot be fetched: no byte came for {seconds:g} s"
        )


class PullCutError(PullError):
    """The stream ended without ``success``: the server or the connection died."""

    code = "pull_cut"
    says = "is not fetched: the server broke off in the middle: {raw}"
    advises = "See that it runs, then: herdbook pull {subject}"


class PullCancelledError(PullError):
    """The server gave the download up, as it does when others who shared it left.

    A pull right after a cancelled one can join what is just being given up; asking
    once more goes on from there.
    """

    code = "pull_cancelled"
    says = "is not fetched: the server gave the download up"
    advises = "Ask again: herdbook pull {subject}"


def _short(text: str, longest: int = 80) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
