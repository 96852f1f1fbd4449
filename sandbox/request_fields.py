"""The fields of each request, with their types in the real server's Go structs.

The names of the structs and types are those of its error messages. A field that is not
listed is ignored, or has any type.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One field of a Go struct.

    Attributes:
        go: The name of its Go type.
        kind: What JSON it takes: ``string``, ``bool``, ``integer``, ``number``,
            ``array`` or ``object``.
        items: What its elements, or its values, must be.
    """

    go: str
    kind: str
    items: Field | None = None
    fields: Mapping[str, Field] = {}


class Struct(msgspec.Struct, frozen=True, kw_only=True):
    """One Go struct.

    Attributes:
        name: Its name.
        package: The package of its name.
        fields: Its fields with one type.
    """

    name: str
    package: str = "api"
    fields: Mapping[str, Field]


_TEXT: Final = Field(go="string", kind="string")
_FLAG: Final = Field(go="bool", kind="bool")
_INTEGER: Final = Field(go="int", kind="integer")
_NUMBER: Final = Field(go="float64", kind="number")
_SHORT_NUMBER: Final = Field(go="float32", kind="number")
_OPTIONS: Final = Field(go="map[string]interface {}", kind="object")
_FILES: Final = Field(go="map[string]string", kind="object", items=_TEXT)
_IMAGES: Final = Field(go="[]api.ImageData", kind="array", items=_TEXT)
_CONTEXT: Final = Field(go="[]int", kind="array", items=_INTEGER)
_TOOLS: Final = Field(
    go="api.Tools", kind="array", items=Field(go="api.Tool", kind="object")
)
_MESSAGES: Final = Field(
    go="[]api.Message",
    kind="array",
    items=Field(
        go="api.Alias",
        kind="object",
        fields={
            "role": _TEXT,
            "content": _TEXT,
            "thinking": _TEXT,
            "tool_name": _TEXT,
            "images": _IMAGES,
        },
    ),
)


def _struct(name: str, *texts: str, **fields: Field) -> Struct:
    package, _, short = name.rpartition(".")
    all_fields = {"model": _TEXT, **dict.fromkeys(texts, _TEXT), **fields}
    return Struct(name=short, package=package or "api", fields=all_fields)


_OPENAI_STREAM: Final = {"stream": _FLAG, "max_tokens": _INTEGER, "seed": _INTEGER}
_USE: Final = {"options": _OPTIONS, "truncate": _FLAG}
_ANSWER: Final = {
    "stream": _FLAG,
    "shift": _FLAG,
    "logprobs": _FLAG,
    "top_logprobs": _INTEGER,
    **_USE,
}

STRUCTS: Final = {
    f"{struct.package}.{struct.name}": struct
    for struct in (
        _struct("ShowRequest", "name", "system", "template",
                verbose=_FLAG, options=_OPTIONS),
        _struct("PullRequest", "name", "username", "password",
                insecure=_FLAG, stream=_FLAG),
        _struct("PushRequest", "name", "username", "password",
                insecure=_FLAG, stream=_FLAG),
        Struct(name="CopyRequest", fields={"source": _TEXT, "destination": _TEXT}),
        _struct("CreateRequest", "name", "from", "remote_host", "system", "template",
                "quantize", "quantization", "renderer", "parser", "requires",
                stream=_FLAG, files=_FILES, adapters=_FILES, parameters=_OPTIONS,
                info=_OPTIONS, messages=_MESSAGES),
        _struct("DeleteRequest", "name"),
        _struct("GenerateRequest", "prompt", "suffix", "system", "template",
                raw=_FLAG, context=_CONTEXT, images=_IMAGES, **_ANSWER),
        _struct("ChatRequest", messages=_MESSAGES, tools=_TOOLS, **_ANSWER),
        _struct("EmbedRequest", dimensions=_INTEGER, **_USE),
        _struct("EmbeddingRequest", "prompt", options=_OPTIONS),
        _struct("openai.ChatCompletionRequest", "reasoning_effort",
                messages=Field(go="[]openai.Message", kind="array"),
                temperature=_NUMBER, top_p=_NUMBER, frequency_penalty=_NUMBER,
                presence_penalty=_NUMBER, logprobs=_FLAG, top_logprobs=_INTEGER,
                tools=Field(go="[]api.Tool", kind="array"), **_OPENAI_STREAM),
        _struct("openai.CompletionRequest", "prompt", "suffix",
                temperature=_SHORT_NUMBER, top_p=_SHORT_NUMBER,
                frequency_penalty=_SHORT_NUMBER, presence_penalty=_SHORT_NUMBER,
                logprobs=_INTEGER, **_OPENAI_STREAM),
        Struct(name="EmbedRequest", package="openai",
               fields={"model": _TEXT, "dimensions": _INTEGER,
                       "encoding_format": _TEXT}),
        _struct("openai.ResponsesRequest", "instructions", "truncation",
                max_output_tokens=_INTEGER, temperature=_NUMBER, top_p=_NUMBER,
                stream=_FLAG),
        _struct("anthropic.MessagesRequest", max_tokens=_INTEGER,
                messages=Field(go="[]anthropic.MessageParam", kind="array"),
                temperature=_NUMBER, top_p=_NUMBER, top_k=_INTEGER, stream=_FLAG),
    )
}  # fmt: skip
"""The structs of all requests, by package and name."""
