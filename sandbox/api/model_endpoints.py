"""The endpoints that keep models: pull, copy, delete, create, show, blobs.

Invariant: a refusal leaves the store as it was.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

import msgspec

from herdbook.sandbox.api import lookup
from herdbook.sandbox.api.create import create_lines
from herdbook.sandbox.api.describe import show as describe_model
from herdbook.sandbox.api.responses import (
    WITHOUT_LENGTH,
    Answer,
    Lines,
    Stream,
    json_answer,
    refusal_answer,
)
from herdbook.sandbox.models.artifacts import Blob, digest_of
from herdbook.sandbox.refusals import Refusal
from herdbook.sandbox.registry.pulls import Pull
from herdbook.sandbox.request_bodies import Body, Json
from herdbook.sandbox.world import World

_DIGEST: Final = re.compile(r"sha256[:-][0-9a-f]{64}")


async def show(world: World, body: Body) -> Answer:
    """Answer with everything about a model."""
    entry = lookup.to_show(world, body.model)
    return json_answer(describe_model(world, entry, body))


async def pull(world: World, body: Body) -> Answer | Stream:
    """Fetch a model from the registry; closing the connection ends it."""
    name = lookup.a_name(body.model)
    under_way = world.pull(name, insecure=body.flag("insecure"))
    return await _streamed(_pull_lines(world, under_way), body)


async def create(world: World, body: Body) -> Answer | Stream:
    """Make a model from another."""
    name = lookup.a_name(body.model)
    if not body.text("from") and not body.table("files"):
        text = "neither 'from' or 'files' was specified"
        if not world.profile.old:
            refusal = refusal_answer(400, text, plain=True)
            return msgspec.structs.replace(refusal, headers=WITHOUT_LENGTH)
        return await _streamed(_one_line({"error": text, "status": 400}), body)
    return await _streamed(create_lines(world, name, body), body)


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


def _check_digest(digest: str) -> None:
    if not _DIGEST.fullmatch(digest):
        raise Refusal(400, "invalid digest format")


async def _pull_lines(world: World, under_way: Pull) -> AsyncGenerator[Json, None]:
    try:
        async for one in under_way.lines.read():
            yield one
    finally:
        world.end_pull(under_way)


async def _one_line(line: Json) -> AsyncGenerator[Json, None]:
    yield line


async def _streamed(source: AsyncGenerator[Json, None], body: Body) -> Answer | Stream:
    """Stream the lines, or answer with the last one if no stream is wanted."""
    lines = await Lines.start(source)
    if body.flag("stream", default=True):
        return Stream(lines=lines)
    async with aclosing(lines):
        last = [one async for one in lines][-1]
    return json_answer(last, status=500 if "error" in last else 200, plain=True)
