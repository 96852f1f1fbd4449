"""The official clients of Ollama, OpenAI and Anthropic work through the gateway."""

from __future__ import annotations

import hashlib
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anthropic
import ollama
import openai
import pytest
from support.gateway_fixture import Uses, gateway, until

from herdbook.gateway.uses import Use
from herdbook.sandbox import RealClock, Settings, World, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MODEL = "lib/tiny:1b"
EMBEDDER = "lib/embed:tiny"
ASKED: list[Any] = [{"role": "user", "content": "hello"}]


@asynccontextmanager
async def served() -> AsyncIterator[tuple[str, Uses]]:
    """Serve a sandbox and a gateway."""
    world = World(
        models="use", clock=RealClock(speed=100), settings=Settings(token_s=0.01)
    )
    uses = Uses()
    async with serve(world) as server, gateway(server, uses) as address:
        yield address, uses


async def last(uses: Uses, count: int) -> Use:
    """Wait until there are as many uses, and return the last one."""
    await until(lambda: len(uses.all) >= count)
    return uses.all[-1]


async def test_every_call_of_the_ollama_client(tmp_path: Path) -> None:
    async with served() as (address, uses), AsyncExitStack() as stack:
        client = await stack.enter_async_context(ollama.AsyncClient(address))
        whole = await client.chat(MODEL, ASKED, options={"num_predict": 3})
        counts = (await last(uses, 1)).counts
        assert counts.prompt_tokens == whole.prompt_eval_count
        assert counts.output_tokens == whole.eval_count == 3

        parts = [part async for part in await client.generate(MODEL, "x", stream=True)]
        counts = (await last(uses, 2)).counts
        assert counts.output_tokens == parts[-1].eval_count
        embedded = await client.embed(EMBEDDER, ["a", "b c"])
        assert (await last(uses, 3)).counts.prompt_tokens == embedded.prompt_eval_count

        old = await client.embeddings(EMBEDDER, "a")
        assert len(old.embedding) == len(embedded.embeddings[0])
        said = [part async for part in await client.chat(MODEL, ASKED, stream=True)]
        assert (await last(uses, 5)).counts.output_tokens == said[-1].eval_count
        one = await client.generate(MODEL, "x", options={"num_predict": 2})
        assert (await last(uses, 6)).counts.output_tokens == one.eval_count == 2

        await client.copy(MODEL, "mine")
        assert "mine:latest" in {one.model for one in (await client.list()).models}
        await client.delete("mine")
        await client.create("made", from_=MODEL, system="be short")
        assert (await client.show("made")).capabilities == ["completion", "tools"]
        blob = tmp_path / "blob"
        blob.write_bytes(b"x" * 100_000)
        digest = await client.create_blob(blob)
        assert digest == f"sha256:{hashlib.sha256(blob.read_bytes()).hexdigest()}"
        assert (await client.pull("tinyllama")).status == "success"
        steps = [
            step.status async for step in await client.pull("tinyllama", stream=True)
        ]
        assert steps[-1] == "success"
        assert {one.model for one in (await client.ps()).models} >= {MODEL, EMBEDDER}
        with pytest.raises(ollama.ResponseError, match="not found"):
            await client.chat("nosuch", ASKED)
        assert (await last(uses, 11)).failure == "model_not_found"


async def test_every_call_of_the_openai_client() -> None:
    async with served() as (address, uses):
        async with openai.AsyncOpenAI(
            base_url=f"{address}/v1", api_key="any", max_retries=0
        ) as client:
            whole = await client.chat.completions.create(
                model=MODEL, messages=ASKED, max_tokens=3
            )
            assert whole.usage is not None
            counts = (await last(uses, 1)).counts
            assert counts.prompt_tokens == whole.usage.prompt_tokens
            assert counts.output_tokens == whole.usage.completion_tokens == 3

            stream = await client.chat.completions.create(
                model=MODEL,
                messages=ASKED,
                stream=True,
                stream_options={"include_usage": True},
            )
            chunks = [chunk async for chunk in stream]
            assert chunks[-1].usage is not None
            counts = (await last(uses, 2)).counts
            assert counts.output_tokens == chunks[-1].usage.completion_tokens

            text = await client.completions.create(
                model=MODEL, prompt="x", max_tokens=2
            )
            assert text.usage is not None
            assert (await last(uses, 3)).counts.output_tokens == 2
            async for part in await client.completions.create(
                model=MODEL, prompt="x", max_tokens=2, stream=True
            ):
                assert part.model == MODEL
            embedded = await client.embeddings.create(model=EMBEDDER, input=["a", "b"])
            assert len(embedded.data) == 2
            prompt = (await last(uses, 5)).counts.prompt_tokens
            assert prompt == embedded.usage.prompt_tokens
            assert [one.id async for one in client.models.list()]
            response = await client.responses.create(
                model=MODEL, input="hello", max_output_tokens=3
            )
            assert response.usage is not None
            counts = (await last(uses, 6)).counts
            assert counts.prompt_tokens == response.usage.input_tokens
            assert counts.output_tokens == response.usage.output_tokens == 3
            async with client.responses.stream(model=MODEL, input="hello") as events:
                ended = await events.get_final_response()
            assert ended.usage is not None
            counts = (await last(uses, 7)).counts
            assert counts.prompt_tokens == ended.usage.input_tokens
            assert counts.output_tokens == ended.usage.output_tokens
            assert ended.output_text
            with pytest.raises(openai.NotFoundError):
                await client.chat.completions.create(model="nosuch", messages=ASKED)


async def test_every_call_of_the_anthropic_client() -> None:
    async with served() as (address, uses):
        async with anthropic.AsyncAnthropic(
            base_url=address, api_key="any", max_retries=0
        ) as client:
            whole = await client.messages.create(
                model=MODEL, messages=ASKED, max_tokens=3
            )
            counts = (await last(uses, 1)).counts
            assert counts.prompt_tokens == whole.usage.input_tokens
            assert counts.output_tokens == whole.usage.output_tokens == 3

            async with client.messages.stream(
                model=MODEL, messages=ASKED, max_tokens=4
            ) as stream:
                text = "".join([part async for part in stream.text_stream])
                final = await stream.get_final_message()
            assert text
            counts = (await last(uses, 2)).counts
            assert counts.prompt_tokens == final.usage.input_tokens
            assert counts.output_tokens == final.usage.output_tokens
            with pytest.raises(anthropic.NotFoundError):
                await client.messages.create(
                    model="nosuch", messages=ASKED, max_tokens=1
                )


async def test_a_refusal_is_an_error_of_the_client() -> None:
    def nobody(_secret: str, _address: str) -> None:
        return None

    async with gateway("http://127.0.0.1:9", authenticate=nobody) as address:
        async with ollama.AsyncClient(address) as client:
            with pytest.raises(ollama.ResponseError, match="Send a token"):
                await client.chat(MODEL, ASKED)
        async with openai.AsyncOpenAI(
            base_url=f"{address}/v1", api_key="wrong", max_retries=0
        ) as openai_client:
            with pytest.raises(openai.AuthenticationError, match="not known"):
                await openai_client.chat.completions.create(model=MODEL, messages=ASKED)
        async with anthropic.AsyncAnthropic(
            base_url=address, api_key="wrong", max_retries=0
        ) as anthropic_client:
            with pytest.raises(anthropic.AuthenticationError, match="not known"):
                await anthropic_client.messages.create(
                    model=MODEL, messages=ASKED, max_tokens=1
                )
