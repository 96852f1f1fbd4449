"""The bodies of tags, ps and show.

Invariant: keys are present and absent exactly as the server has them; the two ways
to detect capabilities may disagree, as they do there.
"""

from __future__ import annotations

import random
from typing import Final

from herdbook.sandbox.go_time import go_date
from herdbook.sandbox.models.artifacts import Config, Contents, Kind, Weights
from herdbook.sandbox.models.names import Name
from herdbook.sandbox.models.store import Entry
from herdbook.sandbox.models.tensors import tensors_of
from herdbook.sandbox.refusals import Refusal
from herdbook.sandbox.request_bodies import Body, Json
from herdbook.sandbox.runners.runner import Runner
from herdbook.sandbox.world import World

#: A template that mentions this gives the model that capability.
_TEMPLATE_GIVES: Final = {
    ".Tools": "tools",
    ".Suffix": "insert",
    ".Thinking": "thinking",
}


def tags(world: World) -> Json:
    """List the models of the store."""
    return {"models": [_tag(world, *one) for one in world.store.listed()]}


def running(world: World) -> Json:
    """List the runners in memory."""
    return {"models": [_runner(world, one) for one in world.runners.listed()]}


def openai_models(world: World) -> list[Json]:
    """List the models as OpenAI's API does."""
    return [openai_model(entry) for entry, _ in world.store.listed()]


def openai_model(entry: Entry) -> Json:
    """Describe one model as OpenAI's API does."""
    return {
        "id": entry.name.display,
        "object": "model",
        "created": int(entry.modified.timestamp()),
        "owned_by": entry.name.namespace,
    }


def show(world: World, entry: Entry, body: Body) -> Json:
    """Return everything about a model."""
    contents = world.contents(entry)
    weights = contents.weights
    if weights is None:
        raise Refusal(404, f"model '{entry.name.display}' not found")
    system = body.text("system") or contents.system
    shown: Json = {
        "license": contents.license,
        "modelfile": _modelfile(entry.name, contents, weights, system),
        "parameters": "\n".join(_parameter_lines(contents)),
        "template": contents.template,
        "system": system,
        "details": details(contents.config, _parent(entry)),
        "model_info": _model_info(weights, verbose=body.flag("verbose")),
        "tensors": tensors_of(weights),
        "capabilities": list(capabilities(contents)),
        "modified_at": go_date(entry.modified, world.settings.zone_minutes),
    }
    return {key: value for key, value in shown.items() if value or key == "model_info"}


def capabilities(contents: Contents) -> tuple[str, ...]:
    """Return the capabilities of a model, from its files."""
    if contents.weights is None:
        return contents.config.capabilities
    given = [
        word for mark, word in _TEMPLATE_GIVES.items() if mark in contents.template
    ]
    return (*contents.weights.capabilities, *given)


def details(config: Config, parent: str = "") -> Json:
    """Return the details of a model, from its config layer."""
    families = config.model_families
    return {
        "parent_model": parent,
        "format": config.model_format,
        "family": config.model_family,
        "families": None if families is None else list(families),
        "parameter_size": config.model_type,
        "quantization_level": config.file_type,
    }


def _tag(world: World, entry: Entry, contents: Contents) -> Json:
    shown: Json = {"name": entry.name.display, "model": entry.name.display}
    config = contents.config
    if config.remote_host:
        shown |= {
            "remote_model": config.remote_model,
            "remote_host": config.remote_host,
        }
    parent = _parent(entry) if world.profile.lists_parent else ""
    shown |= {
        "modified_at": go_date(entry.modified, world.settings.zone_minutes),
        "size": entry.manifest.size,
        "digest": entry.digest,
        "details": details(config, parent),
    }
    if world.profile.lists_capabilities:
        shown["details"] = details(config, parent) | _lengths(contents)
        shown["capabilities"] = list(_glanced(contents))
    return shown


def _lengths(contents: Contents) -> Json:
    source = contents.weights or contents.config
    shown: Json = {
        "context_length": source.context_length,
        "embedding_length": source.embedding_length,
    }
    return {key: value for key, value in shown.items() if value}


def _glanced(contents: Contents) -> tuple[str, ...]:
    """Return the capabilities of a model, as the list has them."""
    weights = contents.weights
    close = capabilities(contents)
    if weights is None or weights.capabilities_in_tags is None:
        return close
    return (*weights.capabilities_in_tags, *close[len(weights.capabilities) :])


def _parent(entry: Entry) -> str:
    """Return the model that another was made from."""
    weights = (one for one in entry.manifest.layers if one.kind is Kind.WEIGHTS)
    return next((layer.origin for layer in weights), "")


def _runner(world: World, runner: Runner) -> Json:
    wanted = runner.wanted
    expires = world.clock.wall(runner.expires_at(world.clock.now()))
    shown: Json = {
        "name": wanted.name,
        "model": wanted.name,
        "size": runner.size,
        "digest": wanted.digest,
        "details": wanted.details,
        "expires_at": go_date(expires, world.settings.zone_minutes),
        "size_vram": world.runners.vram(runner),
    }
    if world.profile.lists_capabilities:
        shown["context_length"] = wanted.context
    return shown


def _modelfile(name: Name, contents: Contents, weights: Weights, system: str) -> str:
    file = weights.digest.replace(":", "-")
    lines = [
        '# Modelfile generated by "ollama show"',
        "# To build a new Modelfile based on this, replace FROM with:",
        f"# FROM {name.display}",
        "",
        f"FROM /models/blobs/{file}",
        f"TEMPLATE {_quoted(contents.template)}",
    ]
    if system:
        lines.append(f"SYSTEM {_quoted(system)}")
    lines += [f"PARAMETER {key} {_plain(value)}" for key, value in _pairs(contents)]
    if contents.license:
        lines.append(f"LICENSE {_quoted(contents.license)}")
    return "\n".join(lines) + "\n"


def _parameter_lines(contents: Contents) -> list[str]:
    return [f"{key:<30} {_go_value(value)}" for key, value in _pairs(contents)]


def _pairs(contents: Contents) -> list[tuple[str, object]]:
    """Give the parameters in an order that differs from call to call, as Go's maps."""
    keys = random.sample(list(contents.parameters), len(contents.parameters))
    pairs: list[tuple[str, object]] = []
    for key in keys:
        value = contents.parameters[key]
        pairs += [(key, one) for one in (value if isinstance(value, list) else [value])]
    return pairs


def _plain(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return _quoted(value)
        case float():
            return f"{value:g}"
        case _:
            return str(value)


def _go_value(value: object) -> str:
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{escaped}"'
    return _plain(value)


def _quoted(text: str) -> str:
    """Quote what would not stand on one line."""
    if "\n" not in text and text == text.strip(" "):
        return text
    return f'"""{text}"""' if '"' in text else f'"{text}"'


def _model_info(weights: Weights, *, verbose: bool) -> Json:
    prefix = weights.architecture
    shown: Json = {f"{prefix}.{key}": value for key, value in weights.info.items()}
    shown |= {
        f"{prefix}.context_length": weights.context_length,
        f"{prefix}.embedding_length": weights.embedding_length,
        "general.architecture": prefix,
        "general.file_type": weights.file_type,
        "general.parameter_count": weights.parameter_count,
        "general.quantization_version": 2,
    }
    vocabulary = _vocabulary(weights.tokens)
    lists = vocabulary if verbose else dict.fromkeys(vocabulary)
    tokenizer: Json = weights.tokenizer | lists
    shown |= {f"tokenizer.ggml.{key}": value for key, value in tokenizer.items()}
    return dict(sorted(shown.items()))


def _vocabulary(tokens: int) -> Json:
    return {
        "scores": [0] * tokens,
        "token_type": [1] * tokens,
        "tokens": [f"<{index}>" for index in range(tokens)],
    }
