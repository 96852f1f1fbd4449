"""The settings of a node as options of ``node add`` and ``node configure``."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
import typer

from herdbook.cli.errors import UsageError
from herdbook.cli.options import size_option
from herdbook.core.errors.suggestions import did_you_mean
from herdbook.events.facts import NodeSettings

SETTINGS: Final = ("key_env", "tags", "weight", "models", "prefer", "max_model")

KeyEnv = Annotated[
    str | None,
    typer.Option(
        "--key-env",
        metavar="VARIABLE",
        help="Environment variable that contains the server's API key.",
    ),
]
Tags = Annotated[
    list[str] | None,
    typer.Option(
        "--tag",
        metavar="KEY=VALUE",
        help="Property of the node, such as ram=64GB or vram=24GB. Repeatable.",
    ),
]
Weight = Annotated[
    float | None,
    typer.Option(
        min=0, max=1000, metavar="N", help="Share of requests, relative to other nodes."
    ),
]
Patterns = Annotated[
    list[str] | None,
    typer.Option(
        "--models",
        metavar="PATTERN",
        help="Only matching models, such as 'qwen*'. Repeatable.",
    ),
]
Prefer = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN", help="Prefer this node for matching models. Repeatable."
    ),
]
MaxModel = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE", help="Only models up to this size on disk, such as 40GB."
    ),
]


def with_options(
    settings: NodeSettings,
    *,
    key_env: str | None,
    tags: list[str] | None,
    weight: float | None,
    models: list[str] | None,
    prefer: list[str] | None,
    max_model: str | None,
) -> NodeSettings:
    """Return settings with the given options instead.

    Raises:
        UsageError: A tag or a size cannot be read.
    """
    changes: dict[str, object] = {}
    if key_env is not None:
        changes["key_env"] = key_env
    if tags:
        changes["tags"] = {**settings.tags, **dict(map(_tag, tags))}
    if weight is not None:
        changes["weight"] = weight
    if models:
        changes["models"] = tuple(models)
    if prefer:
        changes["prefer"] = tuple(prefer)
    if max_model is not None:
        changes["max_model_bytes"] = size_option(max_model)
    return msgspec.structs.replace(settings, **changes)


def _tag(text: str) -> tuple[str, str]:
    key, equals, value = (part.strip() for part in text.partition("="))
    if not (key and equals and value):
        raise UsageError(f"{text[:80]!r}", "is not a tag", "Write KEY=VALUE: ram=64GB")
    return key, value


def without(settings: NodeSettings, names: list[str]) -> NodeSettings:
    """Return settings with some of them at their defaults.

    Raises:
        UsageError: There is no such setting.
    """
    usual, changes = NodeSettings(), dict[str, object]()
    tags = dict(settings.tags)
    for name in names:
        kind, _, key = name.partition(".")
        if kind not in SETTINGS or (key and kind != "tags"):
            raise UsageError(
                f"{name[:80]!r}",
                "is not a setting of a node",
                f"{did_you_mean(name, SETTINGS)}Settings: {', '.join(SETTINGS)}",
            )
        field = "max_model_bytes" if kind == "max_model" else kind
        if key:
            tags.pop(key, None)
            changes["tags"] = tags
        else:
            changes[field] = getattr(usual, field)
    return msgspec.structs.replace(settings, **changes)
