"""Token counts in the last bytes of an answer, in the form of each API."""

from __future__ import annotations

import pytest

from herdbook.gateway.protocol.endpoints import endpoint_of
from herdbook.gateway.recording.counts import (
    HEAD_BYTES,
    TAIL_BYTES,
    Counts,
    counts_of,
    lacks_end,
)

ANSWERS = {
    "a stream of Ollama": (
        (
            b'{"response":"x","done":false}\n'
            b'{"response":"","done":true,"done_reason":"stop","load_duration":2000000000,'
            b'"prompt_eval_count":11,"prompt_eval_duration":5,"eval_count":4}\n'
        ),
        Counts(11, 4, 2.0),
    ),
    "a model that writes counts": (
        (
            b'{"message":{"tool_calls":[{"function":{"arguments":'
            b'{"prompt_eval_count":999}}}]},"done":false}\n{"done":true,"eval_count":4}\n'
        ),
        Counts(None, 4),
    ),
    "quoted counts": (
        b'{"response":"\\"eval_count\\":7","done":true,"eval_count":2}',
        Counts(None, 2),
    ),
    "embeddings": (
        b'{"embeddings":[[0.1]],"total_duration":5,"prompt_eval_count":7}',
        Counts(7),
    ),
    "a load": (b'{"done":true,"done_reason":"load"}', Counts(only="load")),
    "an unload": (b'{"done_reason": "unload"}', Counts(only="unload")),
    "an error in a stream": (
        b'{"response":"x","done":false}\n{"error":"out of memory"}\n',
        Counts(failed=True),
    ),
    "OpenAI": (
        (
            b'{"choices":[],"usage":{"prompt_tokens":13,"completion_tokens":2,'
            b'"total_tokens":15}}'
        ),
        Counts(13, 2),
    ),
    "a stream of OpenAI": (
        (
            b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'
            b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n'
            b"data: [DONE]\n\n"
        ),
        Counts(3, 2),
    ),
    "Anthropic": (
        b'{"content":[],"usage":{"input_tokens":29,"output_tokens":4}}',
        Counts(29, 4),
    ),
    "a stream of Anthropic": (
        b'event: message_start\ndata: {"message":{"usage":{"input_tokens":29,'
        b'"output_tokens":0}}}\n\n' + b"event: ping\ndata: {}\n\n" * 1000 + b"event: "
        b'message_delta\ndata: {"usage":{"output_tokens":4}}\n\n'
        b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
        Counts(29, 4),
    ),
    "a stream of Anthropic that is cut off, whose first event has an estimate": (
        b'event: message_start\ndata: {"message":{"usage":{"input_tokens":3}}}\n\n',
        Counts(),
    ),
    "an error of OpenAI in a stream": (
        b'data: {"error":"it broke"}\n\n',
        Counts(failed=True),
    ),
    "an error object of OpenAI in a stream": (
        b'data: {"error":{"message":"it broke","code":500}}\n\ndata: [DONE]\n\n',
        Counts(failed=True),
    ),
    "an error of Anthropic in a stream": (
        b'event: error\ndata: {"type":"error","error":{"type":"api_error"}}\n\n',
        Counts(failed=True),
    ),
    "an error that is not UTF-8": (b'{"error":"\xff"}\n', Counts(failed=True)),
    "no error": (b'{"error":null,"usage":{"input_tokens":2}}', Counts(2)),
    "a line for each field": (
        b'{\n "usage": {\n  "prompt_tokens": 13,\n  "completion_tokens": 2\n }\n}\n',
        Counts(13, 2),
    ),
    "no counts": (b"Ollama is running", Counts()),
    "nothing": (b"", Counts()),
    "not JSON": (b'{"error" nonsense', Counts()),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_counts_are_read_from_the_last_bytes(name: str) -> None:
    answer, expected = ANSWERS[name]
    assert counts_of(answer[:HEAD_BYTES], answer[-TAIL_BYTES:]) == expected


@pytest.mark.parametrize(
    ("path", "kind", "tail", "lacks"),
    [
        ("/api/chat", b"application/x-ndjson", b'{"done": true}\n', False),
        ("/api/chat", b"application/x-ndjson", b'{"done":false}\n', True),
        # After a long context, the beginning of the last line is not kept.
        ("/api/generate", b"application/x-ndjson", b'7,7],"total_duration":9}', False),
        ("/api/chat", b"application/json", b"{}", False),  # not a stream
        ("/api/chat", b"application/x-ndjson", b"", False),  # cannot be decoded
        ("/v1/chat/completions", b"text/event-stream", b"data: [DONE]\n\n", False),
        ("/v1/chat/completions", b"text/event-stream", b"data: {}\n\n", True),
        ("/v1/messages", b"text/event-stream", b"event: message_stop\n\n", False),
        ("/v1/messages", b"text/event-stream", b"event: ping\n\n", True),
        ("/v1/responses", b"text/event-stream", b"data: {}\n\n", False),
    ],
)
def test_a_stream_without_its_last_part(
    path: str, kind: bytes, tail: bytes, lacks: bool
) -> None:
    endpoint = endpoint_of("POST", path.encode())
    assert lacks_end(endpoint, kind, tail) is lacks
