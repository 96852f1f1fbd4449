"""The state of a server, as one refresh reads it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import msgspec

from herdbook.core.ollama.entries import RUNNERS, UnreadableEntry
from herdbook.events.facts import Runner

WeightsOf = Callable[[str], str | None]
"""Returns the weights of a model's digest, or None where they are not known."""


class ListedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model in the server's list.

    Attributes:
        name: The name, in the server's spelling.
        digest: Digest of the manifest.
        size_bytes: Sum of the layers, bytes.
        remote_host: The host of a cloud model.
        family: The architecture.
        quantization: The quantization, such as ``Q4_K_M``.
        parameter_count: Number of parameters.
        capabilities: The capabilities in the list; None if it has none.
        context_length: The trained context in the list, tokens.
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
    """The state of a server at one time.

    Attributes:
        at: When it was answered.
        server_version: The version that the server reports.
        models: The listed models, by name.
        runners: The runners in memory.
        unreadable: Entries of the lists that cannot be read.
        undecided: Models whose weights are not known, so that only a runner with
            their digest is known to be theirs.
        reports_runners: Whether the server reports its runners. If not, it is unknown
            whether a model is loaded.
        began_at: When it was requested; None if that is not known.
    """

    at: datetime
    server_version: str
    models: dict[str, ListedModel]
    runners: tuple[Runner, ...]
    unreadable: tuple[UnreadableEntry, ...] = ()
    undecided: frozenset[str] = frozenset()
    reports_runners: bool = True
    began_at: datetime | None = None

    @property
    def reports_all_runners(self) -> bool:
        """Whether the server reports its runners, and each of them can be read."""
        hidden = any(entry.source == RUNNERS for entry in self.unreadable)
        return self.reports_runners and not hidden
