"""The endpoints that use models in Ollama's own form: generate, chat and embed.

Invariant: what is refused is refused in the order of the real server: the body, the
name, what the model can do, then the runner.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import AsyncGenerator, Callable
from typing import Final

from herdbook.sandbox.api import lookup
from herdbook.sandbox.api.inference import (
    Usage,
    answer_of,
    figures,
    given_capabilities,
    keep_alive,
    require,
    runner_for,
    spoken,
    thinks_first,
    unload,
)
from herdbook.sandbox.api.responses import Answer, Lines, Stream, json_answer
from herdbook.sandbox.go_time import go_date
from herdbook.sandbox.models.store import Entry
from herdbook.sandbox.refusals import Refusal
from herdbook.sandbox.request_bodies import Body, Json
from herdbook.sandbox.runners.runner import Request
from herdbook.sandbox.world import World

_NOT_RAW: Final = ("template", "system", "context")
_NO_EMBEDDINGS: Final = (
    "This server does not support embeddings. Start it with `--embeddings`"
)
_MOST_PROBABILITIES: Final = 20

Wrap = Callable[[str], Json]
"""Put words under the keys of an endpoint."""


async def generate(world: World, body: Body) -> Answer | Stream:
    """Answer a prompt; without one, load or unload the model."""
    _check_probabilities(body)
    entry = lookup.to_generate(world, body.model)
    idle = not body.text("prompt")
    return await _complete(world, entry, body, wrap=_response, idle=idle)


async def chat(world: World, body: Body) -> Answer | Stream:
    """Answer messages; without any, load or unload the model."""
    _check_probabilities(body)
    if not body.model:
        raise Refusal(400, "model is required")
    entry = lookup.to_generate(world, body.model)
    idle = not body.items("messages")
    return await _complete(world, entry, body, wrap=_message, idle=idle)


async def embed(world: World, body: Body) -> Answer:
    """Turn texts into vectors; without any, load the model."""
    texts = _texts(body.get("input"))
    entry = lookup.to_embed(world, body.model)
    async with runner_for(world, entry, body) as request:
        reply: Json = {"model": body.model, "embeddings": []}
        if not texts:
            return json_answer(reply)
        reply["embeddings"], tokens = _vectors(world, body, texts, request)
        return json_answer(
            reply
            | {
                "total_duration": int(request.loaded_s * 1e9) + 2_000_000,
                "load_duration": int(request.loaded_s * 1e9) + 1_000_000,
                "prompt_eval_count": tokens,
            }
        )


async def vectors(world: World, body: Body) -> tuple[list[list[float]], int]:
    """Turn texts into vectors for another form; also return the number of tokens."""
    given = body.get("input")
    texts = [""] if given == "" else _texts(given)
    entry = lookup.to_embed(world, body.model)
    async with runner_for(world, entry, Body({})) as request:
        return _vectors(world, body, texts, request)


def _embeds(world: World, request: Request) -> bool:
    able = "embedding" in request.wanted.weights.capabilities
    return able or world.profile.embeds_with_any


def _vectors(
    world: World, body: Body, texts: list[str], request: Request
) -> tuple[list[list[float]], int]:
    weights = request.wanted.weights
    if not _embeds(world, request):
        raise Refusal(501, _NO_EMBEDDINGS)
    tokens = [len(text.split()) + 2 for text in texts]
    if tokens and max(tokens) > request.wanted.context:
        if not body.flag("truncate", default=True):
            raise Refusal(400, _too_long(world))
        tokens = [min(count, request.wanted.context) for count in tokens]
    length = weights.embedding_length
    wanted = body.get("dimensions")
    if isinstance(wanted, int) and 0 < wanted < length:
        length = wanted
    return [_vector(text, length) for text in texts], sum(tokens)


async def embeddings(world: World, body: Body) -> Answer:
    """Turn one text into a vector, in the older form."""
    if not body.model:
        raise Refusal(400, "model is required")
    entry = lookup.to_embed(world, body.model)
    async with runner_for(world, entry, body) as request:
        prompt = body.text("prompt")
        if prompt and not _embeds(world, request):
            raise Refusal(500, _NO_EMBEDDINGS)
        length = request.wanted.weights.embedding_length
        vector = _vector(prompt, length) if prompt else []
        return json_answer({"embedding": vector})


async def _complete(
    world: World, entry: Entry, body: Body, *, wrap: Wrap, idle: bool
) -> Answer | Stream:
    stays = keep_alive(world, body)
    if idle and stays == 0:
        unload(world, entry)
        return json_answer(_idle(world, body, wrap, "unload"))
    if body.flag("raw") and any(body.get(one) for one in _NOT_RAW):
        raise Refusal(400, "raw mode does not support template, system, or context")
    verb = "chat" if wrap is _message else "generate"
    require(entry, given_capabilities(world, entry), body, verb)
    if idle:
        async with runner_for(world, entry, body):
            return json_answer(_idle(world, body, wrap, "load"))
    lines = await Lines.start(_lines(world, entry, body, wrap))
    if body.flag("stream", default=True):
        return Stream(lines=lines)
    return json_answer(await _whole(lines, wrap))


async def _lines(
    world: World, entry: Entry, body: Body, wrap: Wrap
) -> AsyncGenerator[Json, None]:
    """Say the answer line by line, while the runner is held."""
    thinks = thinks_first(world, entry, body)
    async with runner_for(world, entry, body) as request:
        usage = answer_of(request, body, body.table("options").get("num_predict"))
        thoughts = len(usage.words) // 2 if thinks else 0
        async for text in spoken(world, usage.words[:thoughts]):
            yield _head(world, body) | _thought(wrap, text) | {"done": False}
        async for text in spoken(world, usage.words[thoughts:]):
            yield _head(world, body) | wrap(text) | {"done": False}
        yield _head(world, body) | wrap("") | _tail(world, body, usage, wrap)


async def _whole(lines: Lines, wrap: Wrap) -> Json:
    """Put the lines of an answer together."""
    reply = [one async for one in lines]
    words = "".join(_words(one, "response", "content") for one in reply)
    thoughts = "".join(_words(one, "thinking", "thinking") for one in reply)
    wrapped = _thought(wrap, thoughts, words) if thoughts else wrap(words)
    whole: Json = {}
    for key, value in reply[-1].items():
        whole |= wrapped if key in wrapped else {key: value}
    return whole


def _words(reply: Json, key: str, key_of_message: str) -> str:
    message = reply.get("message")
    found = message.get(key_of_message) if isinstance(message, dict) else reply.get(key)
    return str(found or "")


def _head(world: World, body: Body) -> Json:
    return {"model": body.model, "created_at": _now(world)}


def _tail(world: World, body: Body, usage: Usage, wrap: Wrap) -> Json:
    reply = _done(world, wrap, usage.reason)
    if wrap is _response and not body.flag("raw"):
        reply["context"] = list(range(24 + len(usage.words)))
    return reply | figures(world, usage)


def _idle(world: World, body: Body, wrap: Wrap, reason: str) -> Json:
    return _head(world, body) | wrap("") | _done(world, wrap, reason)


def _done(world: World, wrap: Wrap, reason: str) -> Json:
    """Return the fields that end an answer.

    Older versions order them differently for chat.
    """
    reply: Json = {"done": True, "done_reason": reason}
    turned = world.profile.old and wrap is _message
    return dict(reversed(reply.items())) if turned else reply


def _response(text: str) -> Json:
    return {"response": text}


def _message(text: str) -> Json:
    return {"message": {"role": "assistant", "content": text}}


def _thought(wrap: Wrap, thoughts: str, words: str = "") -> Json:
    """Put thoughts under the keys of an endpoint, after the words."""
    if wrap is _message:
        message = {"role": "assistant", "content": words, "thinking": thoughts}
        return {"message": message}
    return {"response": words, "thinking": thoughts}


def _now(world: World) -> str:
    return go_date(world.clock.wall(world.clock.now()))


def _check_probabilities(body: Body) -> None:
    wanted = body.get("top_logprobs")
    if isinstance(wanted, int) and not 0 <= wanted <= _MOST_PROBABILITIES:
        limits = f"between 0 and {_MOST_PROBABILITIES}"
        raise Refusal(400, f"top_logprobs must be {limits}")


def _too_long(world: World) -> str:
    if world.profile.old:
        return "input length exceeds maximum context length"
    return "the input length exceeds the context length"


def _texts(value: object) -> list[str]:
    if value is None or value == "":
        return []
    given = value if isinstance(value, list) else [value]
    texts = [text for text in given if isinstance(text, str)]
    if len(texts) < len(given):
        raise Refusal(400, "invalid input type")
    return texts


def _vector(text: str, length: int) -> list[float]:
    """Make a vector of length one that depends on the text alone."""
    seed = hashlib.sha256(text.encode()).digest()
    raw = [seed[index % 32] / 255 - 0.5 + index / length / 8 for index in range(length)]
    norm = math.sqrt(sum(value * value for value in raw)) or 1.0
    return [round(value / norm, 8) for value in raw]
