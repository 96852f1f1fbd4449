"""Make a model from another, with parameters, a system text or a template.

Invariant: the new model shares the weights of its source; only what differs becomes
a new blob, and the lines say which.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

import msgspec

from herdbook.sandbox.models.artifacts import NO_CONFIG, Config, Contents, Package, pack
from herdbook.sandbox.models.names import Name
from herdbook.sandbox.models.store import Entry
from herdbook.sandbox.request_bodies import Body, Json
from herdbook.sandbox.world import World


async def create_lines(
    world: World, name: Name, body: Body
) -> AsyncGenerator[Json, None]:
    """Make the model, telling each step."""
    for file in body.table("files").values():
        yield {"status": "parsing GGUF"}
        path = f"/models/blobs/{str(file).replace(':', '-')}"
        yield {"error": f"open {path}: no such file or directory"}
        return
    if body.text("remote_host") and world.profile.knows_cloud:
        package = pack(Contents(config=_stub(body)))
    else:
        source = Name.parse(body.text("from"))
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
    """Make what older servers made of a source that was not to be had."""
    return pack(Contents(config=NO_CONFIG), older=True)


def _stub(body: Body) -> Config:
    """Describe a model that lives elsewhere."""
    info = body.table("info")
    stated = {"capabilities", "context_length", "embedding_length"} & info.keys()
    host = body.text("remote_host")
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
