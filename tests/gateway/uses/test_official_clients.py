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
from support.gateway.scripted import CollectedUses, gateway, until

from herdbook.gateway.recording.uses import Use
from herdbook.sandbox import RealClock, Settings, World, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MODEL = "lib/tiny:1b"
EMBEDDER = "lib/embed:tiny"
ASKED: list[Any] = [{"role": "user", "content": "hello"}]


@asynccontextmanager
async def served() -> AsyncIterator[tuple[str, CollectedUses]]:
    """Serve a sandbox and a gateway."""
    world = World(
        models="use", clock=RealClock(speed=100), settings=Settings(token_s=0.01)
    )
    uses = CollectedUses()
    async with serve(world) as server, gateway(server, uses) as address:
        yield address, uses


class Noting:
    """A client, or a resource of it, that notes which of its methods are called."""

    def __init__(self, of: Any, called: set[str], path: str = "") -> None:
        self._of = of
        self._called = called
        self._path = path

    def __getattr__(self, name: str) -> Any:
        value, path = getattr(self._of, name), f"{self._path}{name}"
        if is_resource(value):
            return Noting(value, self._called, f"{path}.")
        if callable(value):
            self._called.add(path)
        return value


def is_resource(value: object) -> bool:
    return ".resources." in type(value).__module__


def methods(client: Any, *resources: str) -> set[str]:
    """Return the paths of all methods of some resources, and of those below them."""
    found: set[str] = set()
    for path in resources:
        resource = client
        for name in path.split("."):
            resource = getattr(resource, name)
        for name in dir(type(resource)):
            if name.startswith(("_", "with_")):
                continue
            if is_resource(getattr(resource, name)):
                found |= methods(client, f"{path}.{name}")
            else:
                found.add(f"{path}.{name}")
    return found


async def copy(address: str, name: str) -> None:
    """Copy the model to a name without a slash, which is valid in a path."""
    async with ollama.AsyncClient(address) as client:
        await client.copy(MODEL, name)


async def last(uses: CollectedUses, count: int) -> Use:
    """Wait until there are as many uses, and return the last one."""
    await until(lambda: len(uses.all) >= count)
    return uses.all[-1]


async def test_every_call_of_the_ollama_client(tmp_path: Path) -> None:
    called: set[str] = set()
    async with served() as (address, uses), AsyncExitStack() as stack:
        opened = await stack.enter_async_context(ollama.AsyncClient(address))
        client = Noting(opened, called)
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
        # Endpoints that this server refuses or does not have; its own answer arrives.
        with pytest.raises(ollama.ResponseError, match="signed in"):
            await client.push(MODEL)
        questions = {"q": {"type": "noul", "instructions": "b"}}
        with pytest.raises(ollama.ResponseError, match="404"):
            await client.systemone(MODEL, "a", questions)

    every = {name for name in vars(ollama.AsyncClient) if not name.startswith("_")}
    assert called == every - {"close", "web_search", "web_fetch"}  # at ollama.com


async def refused_by_openai(client: Any) -> None:
    """Call what Ollama does not have; its own answer arrives."""
    for call in (
        lambda: client.chat.completions.retrieve("1"),
        lambda: client.chat.completions.update("1", metadata={}),
        lambda: client.chat.completions.delete("1"),
        client.chat.completions.list,
        lambda: client.chat.completions.messages.list("1"),
        lambda: client.models.delete(MODEL),
        lambda: client.responses.retrieve("1"),
        lambda: client.responses.delete("1"),
        lambda: client.responses.cancel("1"),
        lambda: client.responses.compact(model=MODEL, input="x"),
        lambda: client.responses.input_items.list("1"),
        lambda: client.responses.input_tokens.count(model=MODEL, input="x"),
        # Some of those about which Ollama knows nothing at all.
        client.files.list,
        client.fine_tuning.jobs.list,
        client.batches.list,
        lambda: client.moderations.create(input="x"),
        lambda: client.images.generate(model=MODEL, prompt="x"),
        lambda: client.audio.speech.create(model=MODEL, voice="a", input="x"),
    ):
        with pytest.raises(openai.APIStatusError) as refused:
            await call()
        assert refused.value.status_code in {404, 405}


async def test_every_call_of_the_openai_client() -> None:
    called: set[str] = set()
    async with served() as (address, uses):
        async with openai.AsyncOpenAI(
            base_url=f"{address}/v1", api_key="any", max_retries=0
        ) as opened:
            client = Noting(opened, called)
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
            await copy(address, "mine")
            assert (await client.models.retrieve("mine")).id == "mine"
            whole = await client.chat.completions.parse(model=MODEL, messages=ASKED)
            assert whole.choices[0].message.content
            async with client.chat.completions.stream(
                model=MODEL, messages=ASKED
            ) as events:
                whole = await events.get_final_completion()
            assert whole.choices[0].message.content
            parsed = await client.responses.parse(model=MODEL, input="hello")
            assert parsed.output_text
            assert (await last(uses, 11)).outcome == "completed"
            await refused_by_openai(client)
            served_by_ollama = methods(
                opened, "chat", "completions", "embeddings", "models", "responses"
            )
    assert served_by_ollama - called == {"responses.connect"}  # a WebSocket


async def test_every_call_of_the_anthropic_client() -> None:
    called: set[str] = set()
    async with served() as (address, uses):
        async with anthropic.AsyncAnthropic(
            base_url=address, api_key="any", max_retries=0
        ) as opened:
            client = Noting(opened, called)
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
            parsed = await client.messages.parse(
                model=MODEL, messages=ASKED, max_tokens=3
            )
            assert parsed.content
            assert (await client.models.list()).data
            await copy(address, "mine")
            assert (await client.models.retrieve("mine")).id == "mine"
            for call in (
                lambda: client.messages.count_tokens(model=MODEL, messages=ASKED),
                lambda: client.messages.batches.create(requests=[]),
                lambda: client.messages.batches.retrieve("1"),
                client.messages.batches.list,
                lambda: client.messages.batches.cancel("1"),
                lambda: client.messages.batches.delete("1"),
                lambda: client.messages.batches.results("1"),
                client.files.list,
            ):
                with pytest.raises(anthropic.APIStatusError) as refused:
                    await call()
                assert refused.value.status_code in {404, 405}
            served_by_ollama = methods(opened, "messages", "models")
    assert served_by_ollama <= called


async def test_a_refusal_is_an_error_of_the_client() -> None:
    def nobody(_secret: str) -> None:
        return None

    async with gateway("http://127.0.0.1:9", authenticate=nobody) as address:
        async with ollama.AsyncClient(address) as client:
            with pytest.raises(ollama.ResponseError, match="Send a token"):
                await client.chat(MODEL, ASKED)
        async with openai.AsyncOpenAI(
            base_url=f"{address}/v1", api_key="wrong", max_retries=0
        ) as openai_client:
            with pytest.raises(openai.AuthenticationError, match="Unknown token"):
                await openai_client.chat.completions.create(model=MODEL, messages=ASKED)
        async with anthropic.AsyncAnthropic(
            base_url=address, api_key="wrong", max_retries=0
        ) as anthropic_client:
            with pytest.raises(anthropic.AuthenticationError, match="Unknown token"):
                await anthropic_client.messages.create(
                    model=MODEL, messages=ASKED, max_tokens=1
                )
