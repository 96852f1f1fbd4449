"""Use models: load and unload them, and generate a short answer.

Invariant: a request holds its runner from the moment it is granted until its answer
has ended, however it ends; a client that disconnects releases it at once.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import msgspec

from herdbook.sandbox.api.describe import capabilities, details
from herdbook.sandbox.clock import Clock
from herdbook.sandbox.go_time import keep_alive_s
from herdbook.sandbox.models.store import Entry
from herdbook.sandbox.refusals import Refusal
from herdbook.sandbox.request_bodies import Body, Json
from herdbook.sandbox.results import PendingResult
from herdbook.sandbox.runners.runner import Request, Wanted
from herdbook.sandbox.world import World

#: What every model says, token by token.
_WORDS: Final = re.findall(r" ?\w+|\.", "This is a simulated answer from the sandbox.")

_INTEGERS: Final = (
    *("num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "num_keep"),
    *("draft_num_predict", "seed", "num_predict", "top_k", "repeat_last_n"),
)
_NUMBERS: Final = (
    *("top_p", "min_p", "typical_p", "temperature", "repeat_penalty"),
    *("presence_penalty", "frequency_penalty"),
)
#: Options with their types, as the server's errors name them.
_OPTION_TYPES: Final = {
    **dict.fromkeys(_INTEGERS, ("integer", (int, float))),
    **dict.fromkeys(_NUMBERS, ("float32", (int, float))),
    "use_mmap": ("boolean", (bool,)),
    "stop": ("array", (list,)),
}

#: Options that need a new runner, besides ``num_ctx``.
_OF_RUNNERS: Final = ("num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread")
_NO_IMAGES: Final = (
    '{"error":{"code":400,"message":"Multimodal data provided, but model does not '
    'support multimodal requests.","type":"invalid_request_error"}}'
)
_LEAST_CONTEXT: Final = 4


class Usage:
    """The answer to one request.

    Attributes:
        request: The request for the runner.
        words: The tokens of the answer.
        reason: Why the answer ends.
    """

    def __init__(self, request: Request, words: list[str], reason: str) -> None:
        self.request = request
        self.words = words
        self.reason = reason


def keep_alive(world: World, body: Body) -> float | None:
    """Read the keep-alive of a request, in seconds; None if it has none."""
    whole = world.profile.whole_seconds
    return keep_alive_s(body.get("keep_alive"), whole_seconds=whole)


def unload(world: World, entry: Entry) -> None:
    """Unload the runner of a model's weights."""
    weights = world.contents(entry).weights
    if weights is not None:
        world.runners.unload(weights.digest)


def require(entry: Entry, given: tuple[str, ...], body: Body, verb: str) -> None:
    """Refuse what the model cannot do.

    Args:
        entry: the model.
        given: what it can do.
        body: what is asked of it.
        verb: the endpoint, as the refusal names it.
    """
    if "completion" not in given:
        raise Refusal(400, f'"{body.model}" does not support {verb}')
    if body.get("think") and "thinking" not in given:
        raise Refusal(400, f'"{body.model}" does not support thinking')
    for field, capability in (("suffix", "insert"), ("tools", "tools")):
        if body.get(field) and capability not in given:
            raise Refusal(400, f"{entry.name.full} does not support {capability}")


def wanted_runner(world: World, entry: Entry, options: Json) -> Wanted:
    """Return what a request needs in memory."""
    contents = world.contents(entry)
    weights = contents.weights
    assert weights is not None
    check_options(options)
    parameters = contents.parameters | options
    return Wanted(
        name=entry.name.display,
        digest=entry.digest,
        details=details(contents.config),
        weights=weights,
        context=_context(
            parameters, world.settings.context_length, weights.context_length
        ),
        others=tuple(
            (key, parameters[key]) for key in _OF_RUNNERS if key in parameters
        ),
    )


def check_options(options: Json) -> None:
    """Refuse options of the wrong type; unknown ones are ignored."""
    for name, value in options.items():
        if value is None or name not in _OPTION_TYPES:
            continue
        go, types = _OPTION_TYPES[name]
        if not isinstance(value, types) or (
            go != "boolean" and isinstance(value, bool)
        ):
            raise Refusal(500, f'option "{name}" must be of type {go}')
        if isinstance(value, list) and not all(isinstance(one, str) for one in value):
            raise Refusal(500, f'option "{name}" must be of an array of strings')


@asynccontextmanager
async def runner_for(world: World, entry: Entry, body: Body) -> AsyncIterator[Request]:
    """Hold a runner of a model while something is done with it."""
    wanted = wanted_runner(world, entry, body.table("options"))
    request = world.runners.ask(wanted, keep_alive(world, body))
    try:
        await request.granted.wait()
        yield request
    finally:
        world.runners.leave(request)


def answer_of(request: Request, body: Body, limit: object) -> Usage:
    """Compose the answer: as many tokens as asked for, of a few words.

    Args:
        request: Holds the runner.
        body: What is asked of the model, in Ollama's own form.
        limit: The most tokens; zero and less are no limit.
    """
    if _images(body) and "vision" not in request.wanted.weights.capabilities:
        raise Refusal(400, _NO_IMAGES, plain=body.flag("stream", default=True))
    form = body.get("format")
    if form not in (None, "", "json") and not isinstance(form, dict):
        given = msgspec.json.encode(form).decode()
        raise Refusal(500, _bad_format(given), plain=body.flag("stream", default=True))
    if not isinstance(limit, int | float) or int(limit) <= 0:
        return Usage(request, _WORDS, "stop")
    words = [_WORDS[index % len(_WORDS)] for index in range(int(limit))]
    return Usage(request, words, "length")


def _bad_format(given: str) -> str:
    quoted = msgspec.json.encode(given).decode()
    return f'invalid format: {quoted}; expected "json" or a valid JSON Schema object'


def _images(body: Body) -> bool:
    """Return whether a request has images, in its prompt or in its messages."""
    messages = [one for one in body.items("messages") if isinstance(one, dict)]
    return bool(body.get("images") or any(one.get("images") for one in messages))


async def spoken(world: World, words: list[str]) -> AsyncIterator[str]:
    """Yield the words at their rate; words that are overdue come together."""
    began = world.clock.now()
    said = 0
    while said < len(words):
        await pause(world.clock, world.settings.token_s, soft=len(words) - said > 1)
        due = int((world.clock.now() - began) / world.settings.token_s + 1e-6)
        due = min(max(due, said + 1), len(words))
        yield "".join(words[said:due])
        said = due


async def pause(clock: Clock, seconds: float, *, soft: bool = False) -> None:
    """Wait on the world's clock."""
    over: PendingResult[None] = PendingResult()
    timer = clock.call_later(seconds, lambda: over.settle(None), soft=soft)
    try:
        await over.wait()
    finally:
        timer.cancel()


def figures(world: World, usage: Usage) -> Json:
    """Return the cost of an answer, in nanoseconds and tokens."""
    took = len(usage.words) * world.settings.token_s
    loaded = usage.request.loaded_s
    return {
        "total_duration": int((took + loaded) * 1e9) + 1_000_000,
        "load_duration": int(loaded * 1e9) + 1_000_000,
        "prompt_eval_count": 24,
        "prompt_eval_duration": 1_000_000,
        "eval_count": len(usage.words),
        "eval_duration": int(took * 1e9),
    }


def given_capabilities(world: World, entry: Entry) -> tuple[str, ...]:
    """Return the capabilities of a model; none if its weights are missing."""
    return capabilities(world.contents(entry))


def thinks_first(world: World, entry: Entry, body: Body) -> bool:
    """Return whether the answer of a model begins with thoughts.

    Without ``think``, that depends on the model: those of the recordings have none.
    """
    able = "thinking" in given_capabilities(world, entry)
    return able and not world.profile.old and bool(body.get("think"))


def _context(parameters: Json, usual: int, trained: int) -> int:
    value = parameters.get("num_ctx")
    asked = int(value) if isinstance(value, int | float) else usual
    return min(max(asked, _LEAST_CONTEXT), trained)
