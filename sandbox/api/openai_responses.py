"""The endpoint ``/v1/responses``, in the form of OpenAI's responses.

A whole answer has its keys in the order of the server's type, and the events of a
stream have theirs sorted, as recorded from a real server. The recorded stream ends
after its first texts; the events after them follow the server's source.

Invariant: a request holds its runner while it is answered, and leaves the keep-alive of
the runner as it was.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final

from herdbook.sandbox.api.compatible import NO_CACHE, PROMPT_TOKENS, entry_for
from herdbook.sandbox.api.inference import answer_of, runner_for, spoken
from herdbook.sandbox.api.responses import (
    EVENTS,
    Answer,
    Lines,
    Stream,
    event_lines,
    json_answer,
)
from herdbook.sandbox.models.store import Entry
from herdbook.sandbox.refusals import Refusal
from herdbook.sandbox.request_bodies import Body, Json
from herdbook.sandbox.world import World

_ID: Final = "resp_547"
_MESSAGE: Final = "msg_547"


async def respond(world: World, body: Body) -> Answer | Stream:
    """Answer an input in the form of OpenAI's responses."""
    if not body.model:
        raise Refusal(400, "model is required")
    entry = entry_for(world, body, "chat")
    if body.flag("stream"):
        lines = await Lines.start(_events(world, entry, body))
        return Stream(
            lines=lines, content_type=EVENTS, write=event_lines, headers=NO_CACHE
        )
    async with runner_for(world, entry, Body({})) as request:
        usage = answer_of(request, Body({}), body.get("max_output_tokens"))
        text = "".join([part async for part in spoken(world, usage.words)])
    output: list[Json] = [_message("completed", [_text(text)])]
    answer = _response(world, body, "completed", output, len(usage.words))
    return json_answer(answer, plain=True)


def _response(
    world: World, body: Body, status: str, output: list[Json], count: int | None
) -> Json:
    """Return a response; without a count it is still in progress."""
    now = int(world.clock.wall(world.clock.now()).timestamp())
    usage: Json | None = None
    if count is not None:
        usage = {
            "input_tokens": PROMPT_TOKENS,
            "output_tokens": count,
            "total_tokens": PROMPT_TOKENS + count,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        }
    return {
        "id": _ID,
        "object": "response",
        "created_at": now,
        "completed_at": None if count is None else now,
        "status": status,
        "incomplete_details": None,
        "model": body.model,
        "previous_response_id": None,
        "instructions": None,
        "output": output,
        "error": None,
        "tools": [],
        "tool_choice": "auto",
        "truncation": "disabled",
        "parallel_tool_calls": True,
        "text": {"format": {"type": "text"}},
        "top_p": 1,
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "top_logprobs": 0,
        "temperature": 1,
        "reasoning": None,
        "usage": usage,
        "max_output_tokens": body.get("max_output_tokens"),
        "max_tool_calls": None,
        "store": False,
        "background": False,
        "service_tier": "default",
        "metadata": {},
        "safety_identifier": None,
        "prompt_cache_key": None,
    }


def _message(status: str, content: list[Json]) -> Json:
    return {
        "id": _MESSAGE,
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": content,
    }


def _text(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


async def _events(world: World, entry: Entry, body: Body) -> AsyncGenerator[Json, None]:
    """Yield the events of a stream, numbered, with sorted keys."""
    number = 0
    async for kind, fields in _steps(world, entry, body):
        fields["type"] = f"response.{kind}"
        fields["sequence_number"] = number
        number += 1
        yield dict(sorted(fields.items()))


async def _steps(
    world: World, entry: Entry, body: Body
) -> AsyncGenerator[tuple[str, Json], None]:
    response = _sorted(_response(world, body, "in_progress", [], None))
    part: Json = {"content_index": 0, "item_id": _MESSAGE, "output_index": 0}
    async with runner_for(world, entry, Body({})) as request:
        usage = answer_of(request, Body({}), body.get("max_output_tokens"))
        yield "created", {"response": response}
        yield "in_progress", {"response": response}
        item = _sorted(_message("in_progress", []))
        yield "output_item.added", {"item": item, "output_index": 0}
        yield "content_part.added", part | {"part": _sorted(_text(""))}
        text = ""
        async for word in spoken(world, usage.words):
            text += word
            yield "output_text.delta", part | {"delta": word, "logprobs": []}
    yield "output_text.done", part | {"text": text, "logprobs": []}
    yield "content_part.done", part | {"part": _sorted(_text(text))}
    item = _sorted(_message("completed", [_sorted(_text(text))]))
    yield "output_item.done", {"item": item, "output_index": 0}
    whole = _response(world, body, "completed", [item], len(usage.words))
    yield "completed", {"response": _sorted(whole)}


def _sorted(value: Json) -> Json:
    return dict(sorted(value.items()))
