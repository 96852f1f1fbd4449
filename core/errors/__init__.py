"""Errors of models, operations and the Ollama server: the whole tree of errors.

    HerdbookError
    ├── CallerError                    the request is invalid; nothing was changed
    │   ├── IllegalTransitionError     not allowed in the state of the model
    │   ├── WrongStreamError           an event in a stream of another kind
    │   ├── InvalidNameError           not a valid model name
    │   ├── InvalidAddressError        not a valid server address
    │   ├── InvalidConfigurationError  unknown setting or invalid value
    │   ├── InvalidCatalogueError      invalid catalogue file
    │   ├── NodeAddressError           the log has another address for the node
    │   ├── InvalidDesiredError        invalid desired set
    │   ├── UnknownRoleError           unknown role
    │   ├── UnknownNodeError           unknown node
    │   ├── AmbiguousNodeError         several nodes have the model, or may be meant
    │   ├── NoPlaceError               no node may have the model
    │   ├── UnknownDimensionError      use cannot be grouped by it
    │   ├── ModelNotFoundError         the model does not exist there
    │   ├── OperationEndedError        cancelled, or the manager was closed
    │   └── BusyError                  another operation uses the model
    ├── OllamaError                    the server failed, refused or is unreachable
    │   ├── NodeUnreachableError       nothing answers at the address
    │   ├── NodeTimeoutError           no answer in time
    │   ├── BadAnswerError             the answer is not from Ollama
    │   ├── RefusedError               the server refused the request
    │   ├── BusyServerError            the queue of the server is full
    │   ├── ServerFailedError          any other error of the server
    │   ├── ModelDamagedError          weights or manifest are missing or damaged
    │   ├── CapabilityMissingError     the model lacks a capability
    │   ├── CloudModelError            a cloud model: it cannot be loaded here
    │   ├── LoadFailedError            out of memory, stalled, died …
    │   └── PullError                  the pull failed
    │       ├── PullRefusedError       the registry refused or is unreachable
    │       ├── DiskFullError          the server's disk is full
    │       ├── DigestMismatchError    the data does not match its digest
    │       ├── StalledError           no data arrived for too long
    │       ├── PullCutError           the stream ended without ``success``
    │       └── PullCancelledError     the server cancelled the download
    ├── ResourceExhaustedError         this process has too many open files
    ├── MissingExtraError              a part of Herdbook is not installed
    └── StoreError                     the log cannot be read or written

A message is composed of typed fields: subject, state, remedy. ``kind`` is the stable
word that events record for the error; ``raw`` is the server's own text, unchanged.
"""

from __future__ import annotations

from herdbook.core.errors.caller import (
    AmbiguousNodeError,
    BusyError,
    InvalidAddressError,
    InvalidCatalogueError,
    InvalidConfigurationError,
    InvalidDesiredError,
    InvalidNameError,
    ModelNotFoundError,
    NodeAddressError,
    NoPlaceError,
    OperationEndedError,
    UnknownDimensionError,
    UnknownNodeError,
    UnknownRoleError,
)
from herdbook.core.errors.ollama import (
    BadAnswerError,
    BusyServerError,
    CapabilityMissingError,
    CloudModelError,
    DigestMismatchError,
    DiskFullError,
    LoadFailedError,
    LoadFailure,
    ModelDamagedError,
    NodeTimeoutError,
    NodeUnreachableError,
    OllamaError,
    PullCancelledError,
    PullCutError,
    PullError,
    PullRefusal,
    PullRefusedError,
    RefusedError,
    ServerFailedError,
    StalledError,
    kind_of,
    message_of,
)
from herdbook.events.errors import (
    CallerError,
    ConflictError,
    CorruptLogError,
    EventIdConflictError,
    HerdbookError,
    IllegalTransitionError,
    MissingExtraError,
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
from herdbook.events.shared.file_descriptors import ResourceExhaustedError

__all__ = [
    "AmbiguousNodeError",
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
    "MissingExtraError",
    "ModelDamagedError",
    "ModelNotFoundError",
    "NewerSchemaError",
    "NoPlaceError",
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
    "UnknownDimensionError",
    "UnknownEventTypeError",
    "UnknownNodeError",
    "UnknownRoleError",
    "WrongExpectedVersionError",
    "WrongStreamError",
    "kind_of",
    "message_of",
]
