"""Find the model that a request means, or refuse in the endpoint's own words.

Invariant: every endpoint refuses what is missing or misnamed with the text that the
recordings have for it; the texts differ by endpoint and by version.
"""

from __future__ import annotations

from typing import Final

from herdbook.sandbox.models.names import Name
from herdbook.sandbox.models.store import Entry
from herdbook.sandbox.refusals import Refusal
from herdbook.sandbox.world import World

_DISABLED: Final = "ollama cloud is disabled"


def reference(world: World, text: str, *, what: str) -> str:
    """Take ``:local`` from a reference and refuse one that lives in the cloud.

    Args:
        world: whose models are meant.
        text: the reference as it was given.
        what: what is unavailable of a model in the cloud.

    Raises:
        Refusal: 403 for the cloud, which is disabled here.
    """
    if not world.profile.knows_cloud:
        return text
    lower = text.lower()
    if lower.endswith((":cloud", "-cloud")) and ":" in lower:
        raise Refusal(403, f"{_DISABLED}: {what}")
    return text[: -len(":local")] if lower.endswith(":local") else text


def to_generate(world: World, text: str) -> Entry:
    """Find the model for generate and chat."""
    remote = "remote model is unavailable"
    name = Name.parse(reference(world, text, what=remote))
    if name is None:
        if not text or world.profile.old:
            raise Refusal(404, f"model '{text}' not found")
        raise Refusal(400, "invalid model name")
    entry = world.entry(name)
    if entry is None:
        raise Refusal(404, f"model '{text}' not found")
    if world.contents(entry).config.remote_host:
        raise Refusal(403, f"{_DISABLED}: {remote}")
    return entry


def to_embed(world: World, text: str) -> Entry:
    """Find the model for embed and embeddings."""
    if not text and not world.profile.old:
        raise Refusal(404, "model '' not found")
    what = "remote model is unavailable"
    name = Name.parse(reference(world, text, what=what)) if text else None
    if name is None and text:
        raise Refusal(400, "invalid model name")
    entry = world.entry(name) if name else None
    if entry is None or world.contents(entry).weights is None:
        raise Refusal(404, f'model "{text}" not found, try pulling it first')
    return entry


def to_show(world: World, text: str) -> Entry:
    """Find the model for show."""
    if not text:
        raise Refusal(400, "model is required")
    remote = "remote model details are unavailable"
    name = Name.parse(reference(world, text, what=remote))
    if name is None:
        if world.profile.old:
            raise Refusal(500, "invalid model path")
        raise Refusal(400, "invalid model name")
    entry = world.entry(name)
    if entry is None:
        missing = text if world.profile.old else name.display
        raise Refusal(404, f"model '{missing}' not found")
    if world.contents(entry).config.remote_host:
        raise Refusal(403, f"{_DISABLED}: {remote}")
    return entry


def to_delete(world: World, text: str) -> Entry:
    """Find the model for delete."""
    if not text and not world.profile.old:
        raise Refusal(400, "model is required")
    local = world.profile.knows_cloud and text.lower().endswith(":local")
    name = Name.parse(text[: -len(":local")] if local else text)
    if name is None:
        raise Refusal(400, f'name "{text}" is invalid')
    entry = world.entry(name)
    if entry is None:
        raise Refusal(404, f"model '{text}' not found")
    return entry


def to_copy(world: World, source: str, destination: str) -> tuple[Entry, Name]:
    """Find what to copy, and read the name that the copy gets."""
    names = Name.parse(source), Name.parse(destination)
    if names[0] is None:
        raise Refusal(400, f'source "{source}" is invalid')
    if names[1] is None:
        raise Refusal(400, f'destination "{destination}" is invalid')
    entry = world.entry(names[0])
    if entry is None:
        raise Refusal(404, f'model "{source}" not found')
    return entry, names[1]


def a_name(text: str) -> Name:
    """Read the name that a pull or a create is about."""
    name = Name.parse(text)
    if name is None:
        raise Refusal(400, "invalid model name")
    return name
