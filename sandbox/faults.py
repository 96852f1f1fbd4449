"""Inject faults and other changes from outside, as the recordings' ``did`` steps.

Invariant: an unknown step is refused by name and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from herdbook.sandbox.models.artifacts import Kind
from herdbook.sandbox.models.names import Name
from herdbook.sandbox.models.store import Entry
from herdbook.sandbox.refusals import Refusal
from herdbook.sandbox.registry.registry import Behaviour
from herdbook.sandbox.request_bodies import Json
from herdbook.sandbox.scripted_answers import ScriptedAnswer
from herdbook.sandbox.world import World


def apply_step(world: World, step: Json) -> None:
    """Apply a step; each key is a step of its own.

    Args:
        world: The world to change.
        step: For example ``{"registry": {"rate": 1000000}}``, ``{"server":
            "killed"}`` or ``{"manifest_deleted": "plain:latest"}``.

    Raises:
        Refusal: A step is unknown or cannot be applied.
    """
    unknown = step.keys() - _STEPS.keys()
    if unknown:
        known = ", ".join(sorted(_STEPS))
        raise Refusal(
            400, f"unknown step: {', '.join(sorted(unknown))}; known: {known}"
        )
    for key, value in step.items():
        try:
            _STEPS[key](world, value)
        except msgspec.ValidationError as error:
            raise Refusal(400, f"{key}: {error}") from None


def _registry(world: World, value: object) -> None:
    """Set the behaviour of the registry; an empty object restores the default."""
    changes = msgspec.convert(value, Json)
    usual = msgspec.structs.asdict(world.registry.usual)
    world.registry.behaviour = msgspec.convert({**usual, **changes}, Behaviour)


def _server(world: World, value: object) -> None:
    actions: dict[object, Callable[[], None]] = {
        "killed": world.kill,
        "stopped": world.stop,
        "started": world.start,
    }
    _choose(actions, value)()


def _runner(world: World, value: object) -> None:
    _choose({"killed": world.runners.kill}, value)()


def _start_delay(world: World, value: object) -> None:
    world.runners.start_delay_s = msgspec.convert(value, float)


def _dies_saying(world: World, value: object) -> None:
    world.runners.dies_saying = msgspec.convert(value, str | None)


def _unload_lag(world: World, value: object) -> None:
    world.runners.unload_lag_s = msgspec.convert(value, float)


def _cancel_lag(world: World, value: object) -> None:
    world.downloads.cancel_lag_s = msgspec.convert(value, float)


def _disk(world: World, value: object) -> None:
    world.downloads.disk_bytes = msgspec.convert(value, int | None)


def _manifest_deleted(world: World, value: object) -> None:
    """Delete only the manifest; its blobs stay."""
    del world.store.entries[_entry(world, value).name.key]
    world.store.changed()


def _manifest_damaged(world: World, value: object) -> None:
    _entry(world, value).damaged = True
    world.store.changed()


def _weights_deleted(world: World, value: object) -> None:
    for layer in _entry(world, value).manifest.layers:
        if layer.kind is Kind.WEIGHTS:
            world.store.blobs.pop(layer.digest, None)
    world.store.changed()


def _answer(world: World, value: object) -> None:
    """Script an answer; null removes all scripted answers."""
    if value is None:
        world.answers.clear()
    else:
        world.answers.script(msgspec.convert(value, ScriptedAnswer))


_STEPS: Final[dict[str, Callable[[World, object], None]]] = {
    "registry": _registry,
    "server": _server,
    "runner": _runner,
    "runner_start_delay_s": _start_delay,
    "runner_dies_saying": _dies_saying,
    "unload_lag_s": _unload_lag,
    "cancel_lag_s": _cancel_lag,
    "disk_bytes": _disk,
    "manifest_deleted": _manifest_deleted,
    "manifest_damaged": _manifest_damaged,
    "weights_deleted": _weights_deleted,
    "answer": _answer,
}


def _choose(
    actions: dict[object, Callable[[], None]], value: object
) -> Callable[[], None]:
    if value not in actions:
        raise Refusal(400, f"{value!r} is not one of {', '.join(map(str, actions))}")
    return actions[value]


def _entry(world: World, value: object) -> Entry:
    name = Name.parse(str(value))
    entry = world.store.find(name) if name else None
    if entry is None:
        raise Refusal(400, f"model {value!r} not found")
    return entry
