"""How the pretend server is set up, and which server it pretends to be.

Invariant: nothing here changes while a server runs; what tests change meanwhile are
faults (``faults.py``) and the registry's behaviour.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from herdbook.sandbox.go_time import FOREVER, duration_s


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """What sets one version of the server apart from another.

    Attributes:
        version: what it answers to ``/api/version``.
        tells_capabilities: tags tell capabilities and lengths, ps the context.
        knows_cloud: it has models that live elsewhere, ``:cloud`` and ``:local``.
        embeds_with_any: completion models embed too.
        respells_manifests: a pulled manifest is stored in another spelling, so
            that its digest is not the registry's.
        tells_parent: tags tell from which model another was made.
        whole_seconds: ``keep_alive`` numbers are cut to whole seconds.
        layer_lag_s: how long a pull dwells on a layer that has been fetched.
    """

    version: str
    tells_capabilities: bool = True
    knows_cloud: bool = True
    embeds_with_any: bool = False
    respells_manifests: bool = False
    tells_parent: bool = True
    whole_seconds: bool = False
    layer_lag_s: float = 0.0

    @property
    def old(self) -> bool:
        """Whether its refusals are worded as they were in 2025."""
        return not self.knows_cloud


CURRENT = Profile(version="0.32.15")
OLDER = Profile(
    version="0.9.6",
    tells_capabilities=False,
    knows_cloud=False,
    embeds_with_any=True,
    respells_manifests=True,
    tells_parent=False,
    whole_seconds=True,
    layer_lag_s=0.6,
)
PROFILES = {"current": CURRENT, "older": OLDER}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The server's environment and the machine under it.

    Times in seconds, sizes in bytes, rates in bytes per second.

    Attributes:
        keep_alive_s: how long an idle model stays where nobody said.
        max_loaded: how many runners there may be.
        max_queue: how many loads may wait beside the one under way.
        context_length: the context of a model that says nothing about it.
        load_timeout_s: how long a runner may take to start.
        memory_bytes: what all runners together may hold; None for no limit.
        vram_bytes: how much of that is on a graphics card.
        disk_bytes: what the store may hold; None for no limit.
        prune: whether a start removes partial files older than an hour.
        start_s: what the start of any runner takes.
        load_rate: how fast weights come into memory.
        verify_rate: how fast a fetched layer is checked.
        token_s: what one token of an answer takes.
        zone_minutes: the server's time zone, minutes east of Greenwich.
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
            env: names such as ``OLLAMA_KEEP_ALIVE`` and their values.
            others: settings that no variable tells.
        """
        told = {
            field: read(env[name])
            for name, (field, read) in _VARIABLES.items()
            if name in env
        }
        return msgspec.convert({**told, **others}, cls)


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
