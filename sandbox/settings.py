"""Settings of the sandbox server, and the versions of Ollama that it simulates.

Invariant: nothing here changes while a server runs. Tests change faults
(``faults.py``) and the registry's behaviour instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from herdbook.sandbox.go_time import FOREVER, duration_s


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Differences between versions of the server.

    Attributes:
        version: Answer to ``/api/version``.
        lists_capabilities: Whether tags list capabilities and context lengths, and
            ps the context.
        knows_cloud: Whether there are remote models, ``:cloud`` and ``:local``.
        embeds_with_any: Whether completion models embed too.
        respells_manifests: Whether a pulled manifest is stored in another spelling,
            so that its digest differs from the registry's.
        lists_parent: Whether tags list the model that another was made from.
        whole_seconds: Whether ``keep_alive`` numbers are cut to whole seconds.
        layer_lag_s: Seconds that a pull stays on a downloaded layer.
    """

    version: str
    lists_capabilities: bool = True
    knows_cloud: bool = True
    embeds_with_any: bool = False
    respells_manifests: bool = False
    lists_parent: bool = True
    whole_seconds: bool = False
    layer_lag_s: float = 0.0

    @property
    def old(self) -> bool:
        """Whether its refusals have the wording of 2025."""
        return not self.knows_cloud


CURRENT = Profile(version="0.32.15")
OLDER = Profile(
    version="0.9.6",
    lists_capabilities=False,
    knows_cloud=False,
    embeds_with_any=True,
    respells_manifests=True,
    lists_parent=False,
    whole_seconds=True,
    layer_lag_s=0.6,
)
PROFILES = {"current": CURRENT, "older": OLDER}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The server's environment and the machine under it.

    Times in seconds, sizes in bytes, rates in bytes per second.

    Attributes:
        keep_alive_s: Default time that an idle model stays loaded.
        max_loaded: Maximum number of runners.
        max_queue: Maximum number of loads that wait.
        context_length: Context of a model without one of its own.
        load_timeout_s: Maximum time for a runner to start.
        memory_bytes: Memory for all runners together; None for no limit.
        vram_bytes: Part of it on a graphics card.
        disk_bytes: Maximum size of the store; None for no limit.
        prune: Whether a start removes partial files older than an hour.
        start_s: Time to start any runner.
        load_rate: Rate at which weights are read into memory.
        verify_rate: Rate at which a downloaded layer is verified.
        token_s: Time per token of an answer.
        zone_minutes: The server's time zone, minutes east of Greenwich.
    """

    keep_alive_s: float = 300.0
    max_loaded: int = 3
    max_queue: int = 512
    context_length: int = 4096
    load_timeout_s: float = 300.0
    memory_bytes: int | None = None
    vram_bytes: int = 0
    disk_bytes: int | None = None
    prune: bool = True
    start_s: float = 0.25
    load_rate: float = 1e9
    verify_rate: float = 1.4e9
    token_s: float = 0.011
    zone_minutes: int = 0

    @classmethod
    def from_environment(cls, env: Mapping[str, str], **others: object) -> Settings:
        """Read the variables that the real server reads.

        Args:
            env: Variables such as ``OLLAMA_KEEP_ALIVE``.
            others: Settings without a variable.
        """
        values = {
            field: read(env[name])
            for name, (field, read) in _VARIABLES.items()
            if name in env
        }
        return msgspec.convert({**values, **others}, cls)


def _duration(text: str) -> float:
    plain = text.lstrip("-").isdigit()
    seconds = float(text) if plain else duration_s(text)
    return FOREVER if seconds < 0 else seconds


def _unset(text: str) -> bool:
    return text in {"", "0", "false"}


_VARIABLES: Final[dict[str, tuple[str, Callable[[str], object]]]] = {
    "OLLAMA_MAX_LOADED_MODELS": ("max_loaded", int),
    "OLLAMA_MAX_QUEUE": ("max_queue", int),
    "OLLAMA_CONTEXT_LENGTH": ("context_length", int),
    "OLLAMA_KEEP_ALIVE": ("keep_alive_s", _duration),
    "OLLAMA_LOAD_TIMEOUT": ("load_timeout_s", _duration),
    "OLLAMA_NOPRUNE": ("prune", _unset),
}
