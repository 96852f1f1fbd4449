"""Pages about servers that refuse requests, or report less than others."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.fake_ollama import NOT_FOUND, Reply, answers, fake_ollama, tag
from support.service_program import run_in_thread
from support.web.html_client import open_client


async def texts(tmp_path: Path, *paths: str, **replies: Reply) -> list[str]:
    """Return the text of pages while a server with such replies runs."""

    def read(address: str) -> list[str]:
        with (
            run_in_thread(tmp_path / "herd.db", address) as running,
            open_client(running.address) as browser,
        ):
            return [browser.page(path).text for path in paths]

    async with fake_ollama(answers("llama3.1:8b", shown=None, **replies)) as address:
        return await asyncio.to_thread(read, address)


async def test_loaded_is_unknown_if_the_server_does_not_report_it(
    tmp_path: Path,
) -> None:
    models, server = await texts(tmp_path, "/", "/node", ps=NOT_FOUND)

    assert "llama3.1:8b" in models
    for text in (models, server):
        assert "does not report loaded models: whether a model is loaded" in text
    assert "No models are loaded." not in server


@pytest.mark.parametrize("path", ["/", "/node"])
async def test_refusal_is_reported_as_the_reason_instead_of_a_missing_server(
    tmp_path: Path, path: str
) -> None:
    refused = Reply({"error": "unauthorized"}, 401)

    (text,) = await texts(tmp_path, path, version=refused, tags=refused, ps=refused)

    assert "requires authentication (HTTP 401)" in text
    assert "OLLAMA_API_KEY" in text
    assert "ollama serve" not in text
    assert "server: no answer" in text
    assert "no problems" not in text


async def test_context_from_the_parameters_of_the_model_is_shown_as_configured(
    tmp_path: Path,
) -> None:
    shown = {
        "parameters": "num_ctx                        32768",
        "modelfile": f"FROM /models/blobs/sha256-{'d' * 64}",
        "details": {},
        "model_info": {
            "general.architecture": "llama",
            "llama.context_length": 131072,
        },
    }

    (text,) = await texts(tmp_path, "/models/llama3.1:8b", show=Reply(shown))

    assert "configured context 32,768 tokens the model's parameters" in text


async def test_unreadable_entry_is_named_on_the_models_page(tmp_path: Path) -> None:
    odd = Reply({"models": [tag("llama3.1:8b"), tag("my model (v2)")]})

    models, server = await texts(tmp_path, "/", "/node", tags=odd)

    assert "llama3.1:8b" in models
    assert "1 entry in the server's lists was skipped: my model (v2)" in models
    assert "my model (v2)" in server


async def test_unknown_model_suggests_similar_ones(tmp_path: Path) -> None:
    (page,) = await texts(tmp_path, "/models/llama3.1")

    assert "No events for llama3.1:latest yet" in page
    assert "Did you mean llama3.1:8b" in page
