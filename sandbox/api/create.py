"""Make a model from another, with parameters, a system text or a template.

Invariant: the new model shares the weights of its source; only what differs becomes
a new blob, and the lines say which.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from typing import Final

import msgspec

from herdbook.sandbox.models.artifacts import NO_CONFIG, Config, Contents, Package, pack
from herdbook.sandbox.models.names import Name
from herdbook.sandbox.models.store import Entry
from herdbook.sandbox.request_bodies import Body, Json
from herdbook.sandbox.world import World

DIGEST: Final = re.compile(r"sha256[:-][0-9a-fA-F]{64}")
"""The digest of a blob."""

_CLOUD: Final = "https://ollama.com:443"
_QUANTIZATIONS: Final = ("F32", "F16", "Q4_K_S", "Q4_K_M", "Q8_0")


async def create_lines(
    world: World, name: Name, body: Body
) -> AsyncGenerator[Json, None]:
    """Make the model; yield a line for each step."""
    refusal = _refusal(world, body)
    if refusal is not None:
        if body.table("files"):
            yield {"status": "parsing GGUF"}
        yield refusal
        return
    remote_host = body.text("remote_host")
    if body.text("from").lower().endswith((":cloud", "-cloud")):
        remote_host = remote_host or _CLOUD
    if remote_host and world.profile.knows_cloud:
        package = pack(Contents(config=_stub(body, remote_host)))
    else:
        source = _source(world, body)
        assert source is not None
        async for one in _fetched(world, source):
            yield one
        entry = world.entry(source)
        if entry is None and not world.profile.old:
            return
        package = _derived(world, entry, body) if entry else _nothing()
        for one in _layer_lines(world, package):
            yield one
    yield {"status": "writing manifest"}
    _write(world, name, package)
    yield {"status": "success"}


def _source(world: World, body: Body) -> Name | None:
    text = body.text("from")
    local = world.profile.knows_cloud and text.lower().endswith(":local")
    return Name.parse(text[: -len(":local")] if local else text)


def _refusal(world: World, body: Body) -> Json | None:
    """Return the line that ends a request which cannot be fulfilled."""
    if body.text("from"):
        if _source(world, body) is None:
            return {"error": "invalid model name", "status": 400}
        quantization = body.text("quantize") or body.text("quantization")
        if quantization and quantization.upper() not in _QUANTIZATIONS:
            words = f"supported types are {', '.join(_QUANTIZATIONS)}"
            kind = quantization.upper()
            return {"error": f"unsupported quantization type {kind} - {words}"}
        if isinstance(body.get("license"), bool | int | float):
            kind = "bool" if isinstance(body.get("license"), bool) else "number"
            into = "Go value of type []string"
            return {"error": f"json: cannot unmarshal {kind} into {into}"}
        return None
    return _refusal_of_files(world, body)


def _refusal_of_files(world: World, body: Body) -> Json:
    """Return the line that ends a creation from files: none has weights here."""
    for file, digest in body.table("files").items():
        if not str(file).endswith(".gguf"):
            return {"error": "unknown type", "status": 400}
        if not DIGEST.fullmatch(str(digest)):
            return {"error": "invalid digest format"}
        if str(digest) in world.store.blobs:
            return {"error": "supplied file was not in GGUF format", "status": 400}
        path = f"/models/blobs/{str(digest).replace(':', '-')}"
        return {"error": f"open {path}: no such file or directory"}
    return {"error": "unknown type", "status": 400}


async def _fetched(world: World, source: Name) -> AsyncGenerator[Json, None]:
    """Pull the source first, where it is missing."""
    if world.entry(source) is not None:
        return
    pull = world.pull(source, insecure=False)
    try:
        async for one in pull.lines.read():
            if one.get("status") != "success":
                yield one
    finally:
        world.end_pull(pull)


def _derived(world: World, entry: Entry, body: Body) -> Package:
    contents = world.contents(entry)
    given = body.get("license")
    texts = given if isinstance(given, list) else [given or contents.license]
    made = msgspec.structs.replace(
        contents,
        parameters=contents.parameters | body.table("parameters"),
        system=body.text("system") or contents.system,
        template=body.text("template") or contents.template,
        license="\n".join(str(text) for text in texts),
    )
    origins = {layer.digest: entry.name.display for layer in entry.manifest.layers}
    return pack(made, origins=origins, older=world.profile.old)


def _nothing() -> Package:
    """Return the package that older servers made from a missing source."""
    return pack(Contents(config=NO_CONFIG), older=True)


def _stub(body: Body, host: str) -> Config:
    """Describe a model that lives elsewhere."""
    info = body.table("info")
    stated = {"capabilities", "context_length", "embedding_length"} & info.keys()
    port = "" if ":" in host.partition("://")[2] else ":11434"
    return msgspec.convert(
        {
            **msgspec.structs.asdict(NO_CONFIG),
            "remote_host": f"{host}{port}",
            "remote_model": body.text("from"),
            "rootfs": {"type": "", "diff_ids": None},
            **{key: info[key] for key in stated},
        },
        Config,
    )


def _layer_lines(world: World, package: Package) -> list[Json]:
    blobs = world.store.blobs
    words = {True: "using existing layer", False: "creating new layer"}
    return [
        {"status": f"{words[layer.digest in blobs]} {layer.digest}"}
        for layer in package.manifest.layers
    ]


def _write(world: World, name: Name, package: Package) -> None:
    former = world.store.find(name)
    now = world.clock.wall(world.clock.now())
    world.store.add(name, package, now)
    if former is not None and world.settings.prune:
        world.store.drop_unused(former.manifest)
