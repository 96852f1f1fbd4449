"""Token counts and failures, read from the first and the last bytes of an answer.

Each of the APIs reports the counts at the end: Ollama in the last line or in the whole
answer, OpenAI and Anthropic in an event near the end of the stream. In Anthropic's
form, the first event has tokens of the prompt too: those that count if the last one has
none, and an estimate by Ollama, which has not read the prompt then, if the stream is
cut off. Text of the model cannot imitate a count: its quotes are escaped, and only the
last count matters.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, NamedTuple, TypeAlias

import msgspec

from herdbook.gateway.protocol.endpoints import Endpoint
from herdbook.gateway.protocol.json_bodies import fields_of

HEAD_BYTES: Final = 2_048
"""First bytes of an answer that are kept: Anthropic's first event fits."""

TAIL_BYTES: Final = 8_192
"""Last bytes of an answer that are kept: the counts and the end of the stream fit."""

_NUMBER: Final = rb'"\s*:\s*(\d{1,15})'
_PROMPT: Final = re.compile(
    rb'"(?:prompt_eval_count|prompt_tokens|input_tokens)' + _NUMBER
)
_OUTPUT: Final = re.compile(
    rb'"(?:eval_count|completion_tokens|output_tokens)' + _NUMBER
)
_LOAD: Final = re.compile(rb'"load_duration' + _NUMBER)
_OPENAI_END: Final = b"data: [DONE]"
_ANTHROPIC: Final = b"event: message_start"
_ANTHROPIC_END: Final = b"event: message_delta"
# The context, which may be longer than the bytes that are kept, stands between the two.
_DONE: Final = re.compile(rb'"done"\s*:\s*true|"total_duration"\s*:\s*\d')
_OPENAI_DONE: Final = re.compile(rb"\[DONE\]\s*$")
_ENDS: Final = {
    "/api/generate": _DONE,
    "/api/chat": _DONE,
    "/v1/chat/completions": _OPENAI_DONE,
    "/v1/completions": _OPENAI_DONE,
    "/v1/messages": re.compile(rb"message_stop"),
}
"""What the last part of a stream contains. That of ``/v1/responses`` repeats the whole
answer, so its name may be longer ago than the bytes that are kept."""
_ONLY: Final = frozenset({"load", "unload"})
_DONE_REASON: Final = re.compile(rb'"done_reason"\s*:\s*"(load|unload)"')


class Counts(NamedTuple):
    """What an answer reports about itself.

    Attributes:
        prompt_tokens: Tokens of the prompt; None if not reported.
        output_tokens: Tokens of the answer; None if not reported.
        load_s: Time that the server needed to load the model, seconds; None if not
            reported.
        only: ``load`` or ``unload`` if the request did only that; else empty.
        failed: Whether it ends with an error, in a stream that began well.
    """

    prompt_tokens: int | None = None
    output_tokens: int | None = None
    load_s: float | None = None
    only: str = ""
    failed: bool = False


_Number: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=10**15)]


class _LastLine(msgspec.Struct):
    """The last line of an answer in Ollama's own form."""

    done: bool = False
    done_reason: str = ""
    prompt_eval_count: _Number | None = None
    eval_count: _Number | None = None
    load_duration: _Number | None = None


_last_line: Final = msgspec.json.Decoder(_LastLine)


def counts_of(head: bytes, tail: bytes) -> Counts:
    """Read the counts of an answer.

    Args:
        head: The first bytes of the body, at most ``HEAD_BYTES``.
        tail: The last bytes of the body, at most ``TAIL_BYTES``.
    """
    last = tail.rstrip().removesuffix(_OPENAI_END).rstrip().rpartition(b"\n")[2]
    if (found := _in_last_line(last)) is not None:
        return found
    is_stream_of_events = b"data:" in tail or b"data:" in head
    # A whole answer may have a line for each field.
    part = tail if is_stream_of_events or last.strip() == b"}" else last
    reason = _DONE_REASON.search(last)
    load = _last(_LOAD, part)
    prompt, output = _last(_PROMPT, part), _last(_OUTPUT, part)
    if head.startswith(_ANTHROPIC):
        if _ANTHROPIC_END not in tail:
            prompt = output = None  # those of the first event are an estimate, and 0
        elif prompt is None:
            prompt = _last(_PROMPT, head)
    return Counts(
        prompt_tokens=prompt,
        output_tokens=output,
        load_s=None if load is None else load / 1e9,
        only=reason[1].decode() if reason else "",
        failed=_has_error(last.removeprefix(b"data:").strip()),
    )


def _in_last_line(raw: bytes) -> Counts | None:
    """Return the counts of the last line of an answer in Ollama's own form.

    That is several times as fast as to search for them. None for another form, for an
    error, and for a line whose beginning is not kept.
    """
    if not raw.startswith(b"{") or b'"error"' in raw:
        return None
    try:
        line = _last_line.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not line.done:
        return None
    load, reason = line.load_duration, line.done_reason
    return Counts(
        line.prompt_eval_count,
        line.eval_count,
        None if load is None else load / 1e9,
        reason if reason in _ONLY else "",
    )


def lacks_end(endpoint: Endpoint, kind: bytes, tail: bytes) -> bool:
    """Return whether a stream ended without its last part: the server gave up.

    If its runner dies, Ollama ends a stream in OpenAI's form like that, without an
    error; it does so in all forms if the model repeats one token.

    Args:
        endpoint: What was asked.
        kind: The content type of the answer.
        tail: The last bytes of its body; empty if they cannot be read.
    """
    end = _ENDS.get(endpoint.path)
    is_stream = b"ndjson" in kind or b"event-stream" in kind
    if end is None or not is_stream or not tail:
        return False
    last_line = tail.rfind(b"\n", 0, -1) + 1  # which has it in most cases
    return not end.search(tail, last_line) and not end.search(tail)


def _last(pattern: re.Pattern[bytes], data: bytes) -> int | None:
    found = pattern.findall(data)
    return int(found[-1]) if found else None


def _has_error(line: bytes) -> bool:
    """Return whether the last line of an answer is an error."""
    if b'"error"' not in line:
        return False
    try:
        error = fields_of(line).get("error", b"null")
    except msgspec.DecodeError:
        return False
    return bytes(error).strip() not in {b"null", b'""'}
