"""The state of a server, as one refresh reads it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import msgspec

from herdbook.core.ollama.entries import UnreadableEntry
from herdbook.events.facts import Runner

WeightsOf = Callable[[str], str | None]
"""Returns the weights of a model's digest, or None where they are not known."""


class ListedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model as the server lists it.

    Attributes:
        name: Its name, as the server spells it.
        digest: Digest of its manifest.
        size_bytes: Sum of its layers, bytes.
        remote_host: Where it runs if it is a cloud model.
        family: Its architecture.
        quantization: As the server names it.
        parameter_count: Number of parameters.
        capabilities: What the list says it can do; None where it does not say.
        context_length: Tokens it was trained for, as the list has it.
    """

    name: str
    digest: str
    size_bytes: int
    remote_host: str | None = None
    family: str | None = None
    quantization: str | None = None
    parameter_count: int | None = None
    capabilities: tuple[str, ...] | None = None
    context_length: int | None = None


class ServerState(msgspec.Struct, frozen=True, kw_only=True):
    """What the server shows at one moment.

    Attributes:
        at: When it was asked.
        server_version: Its version, as it says.
        models: What it lists, by name.
        runners: What it has in memory.
        unreadable: Entries of its lists that cannot be read.
        undecided: Models of which the server did not say what their weights are, so
            that only a runner of their digest is known to be theirs.
    """

    at: datetime
    server_version: str
    models: dict[str, ListedModel]
    runners: tuple[Runner, ...]
    unreadable: tuple[UnreadableEntry, ...] = ()
    undecided: frozenset[str] = frozenset()
