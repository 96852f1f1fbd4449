"""Ollama's own Python client against the sandbox as a program of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import ollama
import pytest
from support.sandbox_program import sandbox_process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

WORDS = "This is a simulated answer from the sandbox."
ASKED = [{"role": "user", "content": "a"}]
TOOL = {"type": "function", "function": {"name": "now", "description": "tells it"}}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A program in which seconds are milliseconds, and the models of the herd."""
    with sandbox_process("--models", "herd", "--speed", "1000") as (_, url):
        yield url


@pytest.fixture
def official(address: str) -> Iterator[ollama.Client]:
    with ollama.Client(address) as client:
        yield client


def names(client: ollama.Client) -> set[str | None]:
    return {one.model for one in client.list().models}


def test_official_client_lists(official: ollama.Client) -> None:
    (plain,) = [one for one in official.list().models if one.model == "plain:latest"]

    assert plain.digest is not None
    assert len(plain.digest) == 64
    assert plain.modified_at is not None
    assert plain.details is not None
    assert plain.details.quantization_level == "F16"


def test_official_client_shows(official: ollama.Client) -> None:
    shown = official.show("llama3.2:1b")

    assert shown.capabilities == ["completion", "tools"]
    assert shown.modelinfo is not None
    assert shown.modelinfo["llama.context_length"] == 8192
    assert shown.license == "MIT"
    assert "num_ctx" in (shown.parameters or "")


def test_official_client_lists_running_models(official: ollama.Client) -> None:
    official.generate("llama3.2:1b", keep_alive="24h")

    (running,) = [one for one in official.ps().models if one.model == "llama3.2:1b"]
    official.generate("llama3.2:1b", keep_alive=0)

    assert running.expires_at is not None
    assert running.context_length == 2048
    assert running.size_vram == 0


def test_official_client_pulls_without_a_stream(official: ollama.Client) -> None:
    assert official.pull("smollm2:135m").status == "success"
    assert "smollm2:135m" in names(official)


def test_official_client_pulls_line_by_line(official: ollama.Client) -> None:
    lines = list(official.pull("gemma3:27b", stream=True))
    layers = [one for one in lines if one.digest]

    assert lines[0].status == "pulling manifest"
    assert lines[-1].status == "success"
    assert layers[-1].completed == layers[-1].total


def test_official_client_generates(official: ollama.Client) -> None:
    whole = official.generate("plain", "a")
    pieces = list(official.generate("plain", "a", stream=True))

    assert whole.response == WORDS
    assert whole.done_reason == "stop"
    assert "".join(one.response or "" for one in pieces) == WORDS
    assert [one.done for one in pieces][-1]


def test_official_client_chats(official: ollama.Client) -> None:
    whole = official.chat("plain", ASKED)
    pieces = list(official.chat("plain", ASKED, stream=True))

    assert whole.message.content == WORDS
    assert "".join(one.message.content or "" for one in pieces) == WORDS
    assert [one.done for one in pieces][-1]


def test_official_client_embeds(official: ollama.Client) -> None:
    vectors = official.embed("nomic-embed-text", ["a", "b"]).embeddings
    vector = official.embeddings("nomic-embed-text", "a").embedding

    assert [len(one) for one in vectors] == [64, 64]
    assert len(vector) == 64


def test_official_client_copies_and_deletes(official: ollama.Client) -> None:
    assert official.copy("plain", "copied").status == "success"
    assert "copied:latest" in names(official)

    assert official.delete("copied").status == "success"
    assert "copied:latest" not in names(official)


def test_official_client_creates(official: ollama.Client) -> None:
    made = official.create(
        "mine", from_="plain", system="Be kind.", parameters={"num_ctx": 512}
    )
    shown = official.show("mine")

    assert made.status == "success"
    assert shown.parameters is not None
    assert shown.parameters.split() == ["num_ctx", "512"]
    assert "Be kind." in (shown.modelfile or "")


def test_official_client_creates_line_by_line(official: ollama.Client) -> None:
    lines = [one.status for one in official.create("a", from_="plain", stream=True)]

    assert lines[-2:] == ["writing manifest", "success"]


def test_official_client_sends_blobs(
    official: ollama.Client, address: str, tmp_path: Path
) -> None:
    (tmp_path / "blob").write_bytes(b"some bytes")

    digest = official.create_blob(tmp_path / "blob")

    assert official.create_blob(tmp_path / "blob") == digest
    assert httpx.head(f"{address}/api/blobs/{digest}").status_code == 200


REFUSALS: dict[str, tuple[Callable[[ollama.Client], Any], int, str]] = {
    "show missing": (
        lambda client: client.show("missing"),
        404,
        "model 'missing:latest' not found",
    ),
    "generate missing": (
        lambda client: client.generate("missing", "a"),
        404,
        "model 'missing' not found",
    ),
    "chat missing": (
        lambda client: client.chat("missing", ASKED),
        404,
        "model 'missing' not found",
    ),
    "embed missing": (
        lambda client: client.embed("missing", "a"),
        404,
        'model "missing" not found, try pulling it first',
    ),
    "copy missing": (
        lambda client: client.copy("missing", "b"),
        404,
        'model "missing" not found',
    ),
    "delete missing": (
        lambda client: client.delete("missing"),
        404,
        "model 'missing' not found",
    ),
    "pull missing": (
        lambda client: client.pull("missing"),
        500,
        "pull model manifest: file does not exist",
    ),
    "pull missing by lines": (
        lambda client: list(client.pull("missing", stream=True)),
        -1,  # the client has no status of its own for an error within a stream
        "pull model manifest: file does not exist",
    ),
    "create from missing": (
        lambda client: client.create("b", from_="missing"),
        500,
        "pull model manifest: file does not exist",
    ),
    "create from nothing": (
        lambda client: client.create("b"),
        400,
        "neither 'from' or 'files' was specified",
    ),
    "show no name": (lambda client: client.show("a b"), 400, "invalid model name"),
    "pull no name": (lambda client: client.pull("a b"), 400, "invalid model name"),
    "copy to no name": (
        lambda client: client.copy("plain", "a b"),
        400,
        'destination "a b" is invalid',
    ),
    "delete no name": (
        lambda client: client.delete("a b"),
        400,
        'name "a b" is invalid',
    ),
    "generate without the capability": (
        lambda client: client.generate("nomic-embed-text", "a"),
        400,
        '"nomic-embed-text" does not support generate',
    ),
    "chat without the capability": (
        lambda client: client.chat("nomic-embed-text", ASKED),
        400,
        '"nomic-embed-text" does not support chat',
    ),
    "think without the capability": (
        lambda client: client.chat("plain", ASKED, think=True),
        400,
        '"plain" does not support thinking',
    ),
    "tools without the capability": (
        lambda client: client.chat("plain", ASKED, tools=[TOOL]),
        400,
        "registry.ollama.ai/library/plain:latest does not support tools",
    ),
    "embed without the capability": (
        lambda client: client.embed("plain", "a"),
        501,
        "This server does not support embeddings. Start it with `--embeddings`",
    ),
}


@pytest.mark.parametrize(
    ("call", "status", "text"), REFUSALS.values(), ids=REFUSALS.keys()
)
def test_official_client_raises_refusals(
    official: ollama.Client,
    call: Callable[[ollama.Client], Any],
    status: int,
    text: str,
) -> None:
    with pytest.raises(ollama.ResponseError) as raised:
        call(official)

    assert (raised.value.status_code, raised.value.error) == (status, text)


async def test_official_asynchronous_client_streams(address: str) -> None:
    async with ollama.AsyncClient(address) as client:
        lines = [one async for one in await client.pull("qwen3:8b", stream=True)]
        pieces = [one async for one in await client.chat("plain", ASKED, stream=True)]

    assert lines[-1].status == "success"
    assert pieces[-1].done


def test_official_client_raises_a_connection_error() -> None:
    with sandbox_process() as (_, url):
        pass
    with ollama.Client(url) as client, pytest.raises(ConnectionError):
        client.list()
