"""Errors of a request that is invalid: nothing was changed."""

from __future__ import annotations

import errno

from herdbook.core.errors.suggestions import did_you_mean
from herdbook.events.errors import CallerError, shortened


class InvalidNameError(CallerError):
    """A model name is not valid.

    Attributes:
        name: The given name.
    """

    code = "invalid_name"

    def __init__(self, name: str, *, reason: str) -> None:
        self.name = name
        super().__init__(
            f"{shortened(name)!r}",
            f"is not a valid model name: {reason}",
            "Use model:tag with letters, digits, '.', '_' and '-'",
        )


class InvalidAddressError(CallerError):
    """The address of the server is not valid."""

    code = "invalid_address"

    def __init__(self, address: str, *, reason: str) -> None:
        super().__init__(
            f"{shortened(address)!r}",
            f"is not a valid server address: {reason}",
            "Use http://host:port, as in OLLAMA_HOST",
        )


class NodeAddressError(CallerError):
    """The log has another address for the node, so its models may be other models.

    Attributes:
        known: The address in the log.
        given: The requested address.
    """

    code = "node_address"

    def __init__(self, node: str, *, known: str, given: str) -> None:
        self.known = known
        self.given = given
        super().__init__(
            f"node {node}",
            f"has the address {known} in this log, not {given}",
            "To use a different server, choose another node or log: --node NAME or "
            "--db FILE. If the server has moved, run: "
            f"herdbook node move {node} {given}",
        )


class InvalidConfigurationError(CallerError):
    """A setting does not exist or cannot have the value."""

    code = "invalid_configuration"


class InvalidCatalogueError(CallerError):
    """A catalogue file is not valid; nothing was applied."""

    code = "invalid_catalogue"


class InvalidDesiredError(CallerError):
    """A desired set is not valid; nothing was applied."""

    code = "invalid_desired"


def listen_failure(error: OSError) -> str:
    """Return why a program cannot listen on an address, as the state of a message."""
    if error.errno == errno.EADDRINUSE:
        return "is already in use"
    return f"is not available: {error.strerror or error}"


class OperationEndedError(CallerError):
    """The operation was cancelled, or the manager was closed."""

    code = "cancelled"


class UnknownRoleError(CallerError):
    """A role does not exist.

    Attributes:
        role: The given role.
    """

    code = "unknown_role"

    def __init__(self, role: str, *, known: tuple[str, ...]) -> None:
        self.role = role
        super().__init__(
            f"{shortened(role)!r}",
            "is not a role",
            f"{did_you_mean(role, known)}Roles: {', '.join(known)}",
        )


class UnknownNodeError(CallerError):
    """Herdbook does not manage a node of this name.

    Attributes:
        node: The given name.
    """

    code = "unknown_node"

    def __init__(self, node: str, *, known: tuple[str, ...]) -> None:
        self.node = node
        super().__init__(
            f"{shortened(node)!r}",
            "is not a node in this log",
            f"{did_you_mean(node, known)}Nodes: {', '.join(known)}",
        )


class AmbiguousNodeError(CallerError):
    """The request does not say which of several nodes it is about.

    Attributes:
        model: The model; empty if the request is about none.
        nodes: Names of the nodes that may be meant.
    """

    code = "ambiguous_node"

    def __init__(self, model: str, nodes: tuple[str, ...]) -> None:
        self.model = model
        self.nodes = nodes
        listed = ", ".join(nodes)
        super().__init__(
            model or "the request",
            f"is on several nodes: {listed}" if model else "must name a node",
            "Name one of them as 'node'" if model else f"Nodes: {listed}",
        )


class NoPlaceError(CallerError):
    """No node may get a model.

    Attributes:
        model: The model.
        reasons: Why each node must not have it, in words.
    """

    code = "no_place"

    def __init__(self, model: str, reasons: list[str]) -> None:
        self.model = model
        self.reasons = reasons
        super().__init__(
            model,
            f"cannot be placed on any node: {'; '.join(reasons)}",
            "Change the settings of a node, or name the node to use",
        )


class UnknownDimensionError(CallerError):
    """Use cannot be grouped by a name.

    Attributes:
        name: The given name.
    """

    code = "unknown_dimension"

    def __init__(self, name: str, *, known: tuple[str, ...]) -> None:
        self.name = name
        super().__init__(
            f"{shortened(name)!r}",
            "cannot be used to group usage",
            f"{did_you_mean(name, known)}Use one of: {', '.join(known)}",
        )


class ModelNotFoundError(CallerError):
    """A model does not exist on the server, node or log.

    Attributes:
        name: The model.
        where: ``node NAME``, ``the server`` or ``the log``.
        raw: The answer of the server, if it was asked.
    """

    code = "model_not_found"

    def __init__(
        self,
        name: str,
        *,
        where: str = "the server",
        raw: str = "",
        remedy: str = "Pull it first",
    ) -> None:
        self.name = name
        self.where = where
        self.raw = raw
        super().__init__(name, f"is not on {where}", remedy)


class BusyError(CallerError):
    """Another operation, or another instance, uses the model."""

    code = "busy"
