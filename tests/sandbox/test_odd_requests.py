"""Requests that no recording has, answered as a real server (0.33.0) answered them."""

from __future__ import annotations

from typing import Any

import pytest

USER = {"role": "user", "content": "hi"}
CHAT, EMBED, THINK = "llama3.2:1b", "nomic-embed-text", "qwen3:0.6b"
RAW = "raw mode does not support template, system, or context"
NO_VISION = "Multimodal data provided, but model does not support multimodal requests."


@pytest.mark.parametrize(
    ("method", "path", "status", "headers"),
    [
        ("GET", "/api/push", 405, {"allow": "POST"}),
        ("GET", "/api/me", 405, {"allow": "POST"}),
        ("GET", "/api/user/keys/x", 405, {"allow": "DELETE"}),
        ("POST", "/api/me", 503, {}),
        ("GET", "/api/blobs/", 404, {}),
        ("POST", "/v1/models/", 404, {}),
        ("GET", "/api/tags/", 301, {"location": "/api/tags"}),
        ("HEAD", "/api/tags/", 307, {"location": "/api/tags"}),
        ("POST", "/api/tags/", 404, {}),
        ("POST", "//api/show", 307, {"location": "/api/show"}),
        ("GET", "/api//tags", 307, {"location": "/api/tags"}),
    ],
)
async def test_path_and_method_are_routed_as_by_the_real_server(
    client: Any, method: str, path: str, status: int, headers: dict[str, str]
) -> None:
    result = await client.ask(method, path)

    assert result.status == status
    assert headers.items() <= result.headers.items()


async def test_page_of_an_allowed_origin_may_read_answers(client: Any) -> None:
    headers = {"origin": "http://localhost:3000"}
    listed = await client.ask("GET", "/api/tags", headers=headers)
    asked = await client.ask("OPTIONS", "/api/chat", headers=headers)

    assert listed.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert asked.status == 204
    assert "POST" in asked.headers["access-control-allow-methods"]


async def test_page_of_another_origin_gets_nothing(client: Any) -> None:
    headers = {"origin": "http://example.com"}
    result = await client.ask("OPTIONS", "/api/chat", headers=headers)

    assert result.status == 403
    assert "access-control-allow-origin" not in result.headers


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("generate", {"raw": True, "prompt": "x", "system": "y"}, 400, RAW),
        ("generate", {"raw": True, "prompt": "x", "context": [1]}, 400, RAW),
        ("generate", {"top_logprobs": 21}, 400,
         "top_logprobs must be between 0 and 20"),
        ("generate", {"options": {"temperature": "x"}}, 500,
         'option "temperature" must be of type float32'),
        ("generate", {"options": {"stop": "x"}}, 500,
         'option "stop" must be of type array'),
        ("generate", {"options": {"stop": ["a", 1]}}, 500,
         'option "stop" must be of an array of strings'),
        ("generate", {"options": {"use_mmap": 1}}, 500,
         'option "use_mmap" must be of type boolean'),
        ("generate", {"options": {"num_gpu": True}}, 500,
         'option "num_gpu" must be of type integer'),
        ("generate", {"prompt": "x", "format": []}, 500,
         'invalid format: "[]"; expected "json" or a valid JSON Schema object'),
        ("chat", {"messages": [USER | {"images": ["aGk="]}]}, 400, NO_VISION),
        ("embeddings", {"prompt": "x"}, 500,
         "This server does not support embeddings. Start it with `--embeddings`"),
        ("create", {"from": "a b"}, 400, "invalid model name"),
        ("create", {"from": CHAT, "license": 5, "stream": False}, 500,
         "json: cannot unmarshal number into Go value of type []string"),
        ("create", {"files": {}}, 400, "unknown type"),
        ("create", {"files": {"../a.gguf": "x"}}, 400,
         "file path must be relative"),
        ("create", {"files": {"a.gguf": "x"}, "stream": False}, 500,
         "invalid digest format"),
        ("create", {"from": CHAT, "quantize": "q9"}, 500,
         "unsupported quantization type Q9 - supported types are F32, F16, Q4_K_S"),
    ],
)  # fmt: skip
async def test_request_is_refused_in_the_words_of_the_server(
    client: Any, path: str, body: dict[str, Any], status: int, text: str
) -> None:
    result = await client.post(f"/api/{path}", **{"model": CHAT, **body})

    assert result.status == status
    assert text in result.json["error"]


@pytest.mark.parametrize(
    ("path", "body", "status", "kind", "text"),
    [
        ("chat/completions", {"messages": [USER]}, 400, "invalid_request_error",
         "model is required"),
        ("completions", {"prompt": "x"}, 404, "not_found_error", "model '' not found"),
        ("embeddings", {"model": EMBED}, 400, "invalid_request_error", "invalid input"),
        ("embeddings", {"model": CHAT, "input": "x"}, 501, "api_error",
         "This server does not support embeddings"),
        ("embeddings", {"model": EMBED, "input": "x", "encoding_format": "y"}, 400,
         "invalid_request_error", "Invalid value for 'encoding_format' = y."),
        ("messages", {"max_tokens": 3}, 400, "invalid_request_error",
         "model is required"),
        ("messages", {"model": CHAT, "max_tokens": 3}, 400, "invalid_request_error",
         "messages is required"),
        ("responses", {"input": "x"}, 400, "invalid_request_error",
         "model is required"),
    ],
)  # fmt: skip
async def test_compatible_api_refuses_in_its_form(
    client: Any, path: str, body: dict[str, Any], status: int, kind: str, text: str
) -> None:
    result = await client.post(f"/v1/{path}", **body)

    assert result.status == status
    assert result.json["error"]["type"] == kind
    assert result.json["error"]["message"].startswith(text)


async def test_thinking_model_thinks_before_it_answers(client: Any) -> None:
    body = {"model": THINK, "messages": [USER], "stream": False}
    thought = (await client.post("/api/chat", **body, think=True)).json["message"]
    silent = (await client.post("/api/chat", **body, think=False)).json["message"]

    assert list(thought) == ["role", "content", "thinking"]
    assert thought["thinking"] + thought["content"] == silent["content"]
    assert list(silent) == ["role", "content"]


async def test_vectors_have_the_dimensions_that_were_asked_for(client: Any) -> None:
    asked = {"model": EMBED, "input": "x", "dimensions": 8}
    result = await client.post("/api/embed", **asked)

    assert len(result.json["embeddings"][0]) == 8


async def test_completion_without_a_prompt_loads_the_model(client: Any) -> None:
    result = await client.post("/v1/completions", model=CHAT)

    assert result.json["choices"][0] == {
        "text": "", "index": 0, "finish_reason": "load",
    }  # fmt: skip
    assert await client.loaded() == [CHAT]


async def test_suffix_local_is_not_part_of_a_name(client: Any) -> None:
    made = await client.post("/api/create", model="x", **{"from": f"{CHAT}:local"})
    gone = await client.ask("DELETE", "/api/delete", {"model": "x:local"})

    assert made.lines[-1] == {"status": "success"}
    assert gone.status == 200
    assert "x:latest" not in await client.names()


async def test_one_model_is_described_under_the_name_that_was_asked_for(
    client: Any,
) -> None:
    await client.post("/api/copy", source=CHAT, destination="team/x")

    assert (await client.get("/v1/models/PLAIN"))["id"] == "PLAIN"
    listed = {one["id"]: one for one in (await client.get("/v1/models"))["data"]}
    assert listed["team/x:latest"]["owned_by"] == "team"


async def test_push_ends_with_an_error(client: Any) -> None:
    missing = await client.post("/api/push", model="nope")
    known = await client.post("/api/push", model=CHAT)

    assert [next(iter(line)) for line in missing.lines] == ["status", "status", "error"]
    assert [next(iter(line)) for line in known.lines] == ["status", "error"]
