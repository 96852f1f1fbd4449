"""Herdbook's library: manage the models of an Ollama server and record every change.

Start with ``async with ModelManager.open("herd.db") as manager``. The other names are
its arguments, results and errors.
"""

from __future__ import annotations

from herdbook.core.actor import acting_as
from herdbook.core.clock import Clock, ManualClock, SystemClock
from herdbook.core.desired.desired import DesiredModel, DesiredSet
from herdbook.core.desired.plan import Plan, PlanProgress
from herdbook.core.diagnosis import Diagnosis, Level
from herdbook.core.errors import (
    AmbiguousNodeError,
    BadAnswerError,
    BusyError,
    BusyServerError,
    CallerError,
    CapabilityMissingError,
    CloudModelError,
    ConflictError,
    CorruptLogError,
    DigestMismatchError,
    DiskFullError,
    HerdbookError,
    IllegalTransitionError,
    InvalidAddressError,
    InvalidCatalogueError,
    InvalidConfigurationError,
    InvalidDesiredError,
    InvalidNameError,
    LoadFailedError,
    MissingExtraError,
    ModelDamagedError,
    ModelNotFoundError,
    NewerSchemaError,
    NodeAddressError,
    NodeTimeoutError,
    NodeUnreachableError,
    NoPlaceError,
    NotALogError,
    OllamaError,
    OperationEndedError,
    PullCancelledError,
    PullCutError,
    PullError,
    PullRefusedError,
    RefusedError,
    ResourceExhaustedError,
    ServerFailedError,
    StalledError,
    StoreClosedError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
    UnknownDimensionError,
    UnknownNodeError,
    UnknownRoleError,
    WrongExpectedVersionError,
    WrongStreamError,
)
from herdbook.core.fleet.fleet import Fleet
from herdbook.core.history.diff import Difference, ModelDifference, RoleDifference
from herdbook.core.history.explain import Explanation, ExplanationEvent
from herdbook.core.history.pages import LogPage
from herdbook.core.history.read_model import ReadModel
from herdbook.core.log.storage import Storage
from herdbook.core.manager import ModelManager
from herdbook.core.models.capabilities import ModelMetadata, detect
from herdbook.core.models.configuration import ModelOptions
from herdbook.core.models.names import canonical_name
from herdbook.core.models.registry import (
    KnownModel,
    ModelCapabilities,
    ModelFamily,
    ModelRegistry,
    Suggestion,
)
from herdbook.core.observer import Observer
from herdbook.core.ollama.address import base_url
from herdbook.core.operations.costs import (
    CostSource,
    DeleteCost,
    Figure,
    LoadCost,
    PullCost,
    UnloadCost,
)
from herdbook.core.operations.loads import UnloadResult
from herdbook.core.operations.operations import RunningOperation
from herdbook.core.operations.pull_progress import PullProgress
from herdbook.core.reconcile.server_state import ListedModel, ServerState
from herdbook.core.settings import ManagerSettings
from herdbook.events.facts import Capability, FactSource, Runner, UnloadReason
from herdbook.events.findings import Finding
from herdbook.events.lifecycle import Activity, ModelState
from herdbook.events.recorded import Cause, RecordedEvent
from herdbook.events.verify import Verification, verify
from herdbook.projections.history import HistoryEntry, HistoryFilter
from herdbook.projections.recommendation import Candidate, Recommendation
from herdbook.projections.roles import ModelRole
from herdbook.projections.statistics import ModelStatistics
from herdbook.projections.status import ModelStatus, NodeStatus
from herdbook.projections.usage.report import Usage, UsageDimension, UsageRow

ManagerError = HerdbookError
"""The base of all errors that a manager raises: another name for ``HerdbookError``."""

__all__ = [
    "Activity",
    "AmbiguousNodeError",
    "BadAnswerError",
    "BusyError",
    "BusyServerError",
    "CallerError",
    "Candidate",
    "Capability",
    "CapabilityMissingError",
    "Cause",
    "Clock",
    "CloudModelError",
    "ConflictError",
    "CorruptLogError",
    "CostSource",
    "DeleteCost",
    "DesiredModel",
    "DesiredSet",
    "Diagnosis",
    "Difference",
    "DigestMismatchError",
    "DiskFullError",
    "Explanation",
    "ExplanationEvent",
    "FactSource",
    "Figure",
    "Finding",
    "Fleet",
    "HerdbookError",
    "HistoryEntry",
    "HistoryFilter",
    "IllegalTransitionError",
    "InvalidAddressError",
    "InvalidCatalogueError",
    "InvalidConfigurationError",
    "InvalidDesiredError",
    "InvalidNameError",
    "KnownModel",
    "Level",
    "ListedModel",
    "LoadCost",
    "LoadFailedError",
    "LogPage",
    "ManagerError",
    "ManagerSettings",
    "ManualClock",
    "MissingExtraError",
    "ModelCapabilities",
    "ModelDamagedError",
    "ModelDifference",
    "ModelFamily",
    "ModelManager",
    "ModelMetadata",
    "ModelNotFoundError",
    "ModelOptions",
    "ModelRegistry",
    "ModelRole",
    "ModelState",
    "ModelStatistics",
    "ModelStatus",
    "NewerSchemaError",
    "NoPlaceError",
    "NodeAddressError",
    "NodeStatus",
    "NodeTimeoutError",
    "NodeUnreachableError",
    "NotALogError",
    "Observer",
    "OllamaError",
    "OperationEndedError",
    "Plan",
    "PlanProgress",
    "PullCancelledError",
    "PullCost",
    "PullCutError",
    "PullError",
    "PullProgress",
    "PullRefusedError",
    "ReadModel",
    "Recommendation",
    "RecordedEvent",
    "RefusedError",
    "ResourceExhaustedError",
    "RoleDifference",
    "Runner",
    "RunningOperation",
    "ServerFailedError",
    "ServerState",
    "StalledError",
    "Storage",
    "StoreClosedError",
    "StoreError",
    "StoreFullError",
    "StoreUnavailableError",
    "Suggestion",
    "SystemClock",
    "UnknownDimensionError",
    "UnknownNodeError",
    "UnknownRoleError",
    "UnloadCost",
    "UnloadReason",
    "UnloadResult",
    "Usage",
    "UsageDimension",
    "UsageRow",
    "Verification",
    "WrongExpectedVersionError",
    "WrongStreamError",
    "acting_as",
    "base_url",
    "canonical_name",
    "detect",
    "verify",
]
