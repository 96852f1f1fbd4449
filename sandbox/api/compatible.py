"""The endpoints that use models in the forms of OpenAI and Anthropic.

Invariant: a request holds its runner while it is answered, and leaves the keep-alive of
the runner as it was.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import AsyncGenerator, Callable
from typing import Final

from herdbook.sandbox.api import inference_endpoints, lookup
from herdbook.sandbox.api.inference import (
    answer_of,
    given_capabilities,
    require,
    runner_for,
    spoken,
)
from herdbook.sandbox.api.responses import (
    EVENTS,
    LINES,
    Answer,
    Lines,
    Stream,
    data_line,
    event_lines,
    json_answer,
)
from herdbook.sandbox.models.store import Entry
from herdbook.sandbox.refusals import Malformed, Refusal
from herdbook.sandbox.request_bodies import Body, Json
from herdbook.sandbox.world import World

PROMPT_TOKENS: Final = 24
"""Tokens that each prompt has."""

NO_CACHE: Final = {"cache-control": "no-cache"}
_EFFORTS: Final = (
    *("minimal", "low", "medium", "high", "xhigh", "ultra", "max"),
    "none",
)
_GO_KINDS: Final = {bool: "bool", int: "float64", float: "float64"}
_FINISHED: Final = {"stop": "end_turn", "length": "max_tokens"}
"""Anthropic's words for why an answer ends."""


async def chat(world: World, body: Body) -> Answer | Stream:
    """Answer messages in OpenAI's form."""
    if not body.items("messages"):
        raise Malformed(400, "[] is too short - 'messages'")
    _check_contents(body)
    effort = body.get("reasoning_effort")
    if effort is not None and effort not in _EFFORTS:
        names = ", ".join(f'"{one}"' for one in _EFFORTS[:-1])
        words = f'(must be {names}, or "{_EFFORTS[-1]}")'
        raise Malformed(400, f'invalid reasoning value: "{effort}" {words}')
    if not body.model:
        raise Refusal(400, "model is required")
    entry = entry_for(world, body, "chat")
    head = _head(world, body, "chatcmpl-547", "chat.completion")
    if body.flag("stream"):
        head["object"] = "chat.completion.chunk"
        return await _stream(_chunks(world, entry, body, head))

    def whole(text: str, reason: str, count: int) -> Json:
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": reason}
        return head | {"choices": [choice], "usage": _usage(count)}

    return await _whole(world, entry, body, whole)


async def completions(world: World, body: Body) -> Answer | Stream:
    """Complete a prompt in OpenAI's form."""
    entry = entry_for(world, body, "generate")
    head = _head(world, body, "cmpl-547", "text_completion")
    if not body.text("prompt"):  # loads the model, as Ollama's own form does
        choice = {"text": "", "index": 0, "finish_reason": "load"}
        async with runner_for(world, entry, Body({})):
            reply = head | {"choices": [choice]}
        if body.flag("stream"):
            return await _stream(_one_chunk(reply))
        usage = dict.fromkeys(_usage(0), 0)
        return json_answer(reply | {"usage": usage}, plain=True)
    if body.flag("stream"):
        return await _stream(_texts(world, entry, body, head))

    def whole(text: str, reason: str, count: int) -> Json:
        choice = {"text": text, "index": 0, "finish_reason": reason}
        return head | {"choices": [choice], "usage": _usage(count)}

    return await _whole(world, entry, body, whole)


async def embeddings(world: World, body: Body) -> Answer:
    """Turn texts into vectors in OpenAI's form."""
    if body.get("input") in (None, []):
        raise Malformed(400, "invalid input")
    encoding = body.text("encoding_format")
    if encoding not in {"", "float", "base64"}:
        words = f"= {encoding}. Supported values: ['float', 'base64']."
        raise Malformed(400, f"Invalid value for 'encoding_format' {words}")
    vectors, tokens = await inference_endpoints.vectors(world, body)
    packed = body.text("encoding_format") == "base64"
    data = [
        {
            "object": "embedding",
            "embedding": _packed(vector) if packed else vector,
            "index": index,
        }
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    reply: Json = {"object": "list", "data": data, "model": body.model, "usage": usage}
    return json_answer(reply, plain=True)


async def messages(world: World, body: Body) -> Answer | Stream:
    """Answer messages in Anthropic's form."""
    if not body.model:
        raise Malformed(400, "model is required")
    limit = body.get("max_tokens")
    if not isinstance(limit, int) or limit <= 0:
        raise Malformed(400, "max_tokens is required and must be positive")
    if not body.items("messages"):
        raise Malformed(400, "messages is required")
    entry = entry_for(world, body, "chat")
    head: Json = {
        "id": "msg_26ce2e229dccc0b9b6af3403",
        "type": "message",
        "role": "assistant",
        "model": body.model,
    }
    if body.flag("stream"):
        lines = await Lines.start(_events(world, entry, body, head))
        return Stream(
            lines=lines, content_type=LINES, write=event_lines, headers=NO_CACHE
        )

    def whole(text: str, reason: str, count: int) -> Json:
        usage = {"input_tokens": PROMPT_TOKENS, "output_tokens": count}
        content = [{"type": "text", "text": text}]
        return head | {
            "content": content,
            "stop_reason": _FINISHED[reason],
            "usage": usage,
        }

    return await _whole(world, entry, body, whole)


def entry_for(world: World, body: Body, verb: str) -> Entry:
    """Return the model of a request.

    Raises:
        Refusal: The model does not exist, or cannot do what is asked.
    """
    entry = lookup.to_generate(world, body.model)
    require(entry, given_capabilities(world, entry), body, verb)
    return entry


def _check_contents(body: Body) -> None:
    """Refuse messages whose content OpenAI's form does not know."""
    for message in body.items("messages"):
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, bool | int | float):
            kind = _GO_KINDS[type(content)]
            raise Malformed(400, f"invalid message content type: {kind}")
        parts = content if isinstance(content, list) else []
        for part in parts:
            image = part.get("image_url") if isinstance(part, dict) else None
            url = image.get("url") if isinstance(image, dict) else image
            if isinstance(url, str) and url.startswith(("http://", "https://")):
                words = "please use base64 encoded data instead"
                raise Malformed(400, f"image URLs are not currently supported, {words}")


def _head(world: World, body: Body, id_: str, kind: str) -> Json:
    return {
        "id": id_,
        "object": kind,
        "created": int(world.clock.wall(world.clock.now()).timestamp()),
        "model": body.model,
        "system_fingerprint": "fp_ollama",
    }


def _usage(count: int) -> Json:
    return {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": count,
        "total_tokens": PROMPT_TOKENS + count,
    }


async def _whole(
    world: World, entry: Entry, body: Body, shape: Callable[[str, str, int], Json]
) -> Answer:
    async with runner_for(world, entry, Body({})) as request:
        usage = answer_of(request, Body({}), body.get("max_tokens"))
        text = "".join([part async for part in spoken(world, usage.words)])
    reply = shape(text, usage.reason, len(usage.words))
    return json_answer(reply, plain=True)


async def _one_chunk(chunk: Json) -> AsyncGenerator[Json, None]:
    yield chunk
    yield {}


async def _stream(source: AsyncGenerator[Json, None]) -> Stream:
    lines = await Lines.start(source)
    return Stream(lines=lines, content_type=EVENTS, write=data_line)


async def _chunks(
    world: World, entry: Entry, body: Body, head: Json
) -> AsyncGenerator[Json, None]:
    """Yield the chunks of OpenAI's chat; the last one, without keys, ends them."""
    async with runner_for(world, entry, Body({})) as request:
        usage = answer_of(request, Body({}), body.get("max_tokens"))
        delta: Json = {"role": "assistant"}
        async for text in spoken(world, usage.words):
            delta["content"] = text
            yield head | {"choices": [_choice(delta, None)]}
            delta = {}
        yield head | {"choices": [_choice({"content": ""}, usage.reason)]}
    if body.table("stream_options").get("include_usage"):
        yield head | {"choices": [], "usage": _usage(len(usage.words))}
    yield {}


def _choice(delta: Json, reason: str | None) -> Json:
    return {"index": 0, "delta": delta, "finish_reason": reason}


async def _texts(
    world: World, entry: Entry, body: Body, head: Json
) -> AsyncGenerator[Json, None]:
    """Yield the chunks of OpenAI's completions, which have their choices first."""
    wants_usage = bool(body.table("stream_options").get("include_usage"))
    tail = {"model": head["model"], "system_fingerprint": head["system_fingerprint"]}
    start = {key: head[key] for key in ("id", "object", "created")}

    def chunk(choices: list[Json], count: int) -> Json:
        reply = start | {"choices": choices} | tail
        spent: Json = _usage(count) if count else dict.fromkeys(_usage(0), 0)
        return reply | ({"usage": spent} if wants_usage else {})

    async with runner_for(world, entry, Body({})) as request:
        usage = answer_of(request, Body({}), body.get("max_tokens"))
        async for text in spoken(world, usage.words):
            choice: Json = {"text": text, "index": 0, "finish_reason": None}
            yield chunk([choice], 0)
        yield chunk([{"text": "", "index": 0, "finish_reason": usage.reason}], 0)
    if wants_usage:
        yield chunk([], len(usage.words))
    yield {}


async def _events(
    world: World, entry: Entry, body: Body, head: Json
) -> AsyncGenerator[Json, None]:
    """Yield the events of an answer in Anthropic's form."""
    async with runner_for(world, entry, Body({})) as request:
        usage = answer_of(request, Body({}), body.get("max_tokens"))
        started = head | {
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": PROMPT_TOKENS, "output_tokens": 0},
        }
        yield {"type": "message_start", "message": started}
        block: Json = {"type": "text", "text": ""}
        yield {"type": "content_block_start", "index": 0, "content_block": block}
        async for text in spoken(world, usage.words):
            delta: Json = {"type": "text_delta", "text": text}
            yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}
    ended: Json = {"stop_reason": _FINISHED[usage.reason], "stop_sequence": None}
    spent: Json = {"input_tokens": PROMPT_TOKENS, "output_tokens": len(usage.words)}
    yield {"type": "message_delta", "delta": ended, "usage": spent}
    yield {"type": "message_stop"}


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
