"""The endpoints that keep models: pull, copy, delete, create, show, blobs.

Invariant: a refusal leaves the store as it was.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from herdbook.sandbox.api import lookup
from herdbook.sandbox.api.create import DIGEST, create_lines
from herdbook.sandbox.api.describe import show as describe_model
from herdbook.sandbox.api.responses import (
    WITHOUT_LENGTH,
    Answer,
    Lines,
    Stream,
    json_answer,
)
from herdbook.sandbox.models.artifacts import Blob, digest_of
from herdbook.sandbox.models.names import Name
from herdbook.sandbox.refusals import Refusal
from herdbook.sandbox.registry.pulls import Pull
from herdbook.sandbox.request_bodies import Body, Json
from herdbook.sandbox.world import World


async def show(world: World, body: Body) -> Answer:
    """Answer with everything about a model."""
    entry = lookup.to_show(world, body.model)
    return json_answer(describe_model(world, entry, body))


async def pull(world: World, body: Body) -> Answer | Stream:
    """Fetch a model from the registry; closing the connection ends it."""
    name = lookup.a_name(body.model)
    under_way = world.pull(name, insecure=body.flag("insecure"))
    return await _streamed(world, _pull_lines(world, under_way), body)


async def push(world: World, body: Body) -> Answer | Stream:
    """Refuse to upload a model: the simulated registry takes none."""
    if not body.model:
        raise Refusal(400, "model is required")
    return await _streamed(world, _push_lines(world, body.model), body)


async def create(world: World, body: Body) -> Answer | Stream:
    """Make a model from another."""
    for file, digest in body.table("files").items():
        if not _is_inside(file):
            raise Refusal(400, "file path must be relative")
        if not digest:
            raise Refusal(400, "invalid digest format")
    name = lookup.a_name(body.model)
    if not body.text("from") and body.get("files") is None:
        text = "neither 'from' or 'files' was specified"
        lines = _one_line({"error": text, "status": 400})
    else:
        lines = create_lines(world, name, body)
    return await _streamed(world, lines, body)


async def copy(world: World, body: Body) -> Answer:
    """Give a model a second name."""
    source, destination = body.text("source"), body.text("destination")
    entry, name = lookup.to_copy(world, source, destination)
    now = world.clock.wall(world.clock.now())
    world.store.write(name, entry.manifest, now, entry.digest)
    return Answer()


async def delete(world: World, body: Body) -> Answer:
    """Remove a model; a runner of it stays in memory."""
    world.store.remove(lookup.to_delete(world, body.model).name)
    return Answer()


async def has_blob(world: World, digest: str, _raw: bytes) -> Answer:
    """Answer whether a blob exists."""
    _check_digest(digest)
    if digest not in world.store.blobs:
        raise Refusal(404, f'blob "{digest}" not found')
    return Answer(headers=WITHOUT_LENGTH)


async def take_blob(world: World, digest: str, raw: bytes) -> Answer:
    """Keep a blob that was sent."""
    _check_digest(digest)
    if digest in world.store.blobs:
        return Answer()
    got = digest_of(raw)
    if got != digest:
        raise Refusal(400, f'digest mismatch, expected "{digest}", got "{got}"')
    blob = Blob(digest=digest, size=len(raw), text=raw.decode("utf-8", "replace"))
    world.store.blobs[digest] = blob
    world.store.changed()
    return Answer(status=201)


def _is_inside(path: str) -> bool:
    """Return whether a path is one that Go's ``fs.ValidPath`` takes."""
    return path == "." or not {"", ".", ".."} & {*path.split("/")}


def _check_digest(digest: str) -> None:
    if not DIGEST.fullmatch(digest):
        raise Refusal(400, "invalid digest format")


async def _pull_lines(world: World, under_way: Pull) -> AsyncGenerator[Json, None]:
    try:
        async for one in under_way.lines.read():
            yield one
    finally:
        world.end_pull(under_way)


async def _push_lines(world: World, text: str) -> AsyncGenerator[Json, None]:
    yield {"status": "retrieving manifest"}
    name = Name.parse(text)
    if name is None or world.entry(name) is None:
        yield {"status": "couldn't retrieve manifest"}
        place = f"{name.full.replace(':', '/')}" if name else text
        path = f"/models/manifests/{place}"
        yield {"error": f"open {path}: no such file or directory"}
    else:
        yield {"error": "you must be signed in to push"}


async def _one_line(line: Json) -> AsyncGenerator[Json, None]:
    yield line


async def _streamed(
    world: World, source: AsyncGenerator[Json, None], body: Body
) -> Answer | Stream:
    """Stream the lines, or answer with the last one if no stream is wanted.

    An error that comes first is an answer of its own, since 2026.
    """
    lines = await Lines.start(source)
    if body.flag("stream", default=True):
        if "error" not in lines.first or world.profile.old:
            return Stream(lines=lines)
        answer = await _last(lines)
        return msgspec.structs.replace(answer, headers=WITHOUT_LENGTH)
    return await _last(lines)


async def _last(lines: Lines) -> Answer:
    async with aclosing(lines):
        last = [one async for one in lines][-1]
    if "error" not in last:
        return json_answer(last, plain=True)
    status = last.pop("status", 500)
    assert isinstance(status, int)
    return json_answer(last, status=status, plain=True)
