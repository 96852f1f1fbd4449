"""Models in the store: shown, copied, created, deleted, and damaged."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from herdbook.sandbox import OLDER, ManualClock, Settings, apply_step
from herdbook.sandbox.clock import EPOCH
from herdbook.sandbox.persistence import persist

if TYPE_CHECKING:
    from pathlib import Path

HELLO = f"sha256:{hashlib.sha256(b'hello').hexdigest()}"


async def show(client: Any, model: str) -> Any:
    return (await client.post("/api/show", model=model)).json


async def test_common_model_is_described_completely(client_of: Any) -> None:
    client = client_of(models="some")

    result = await show(client, "gemma3:4b")

    assert result["capabilities"] == ["completion", "vision"]
    assert result["model_info"]["gemma3.context_length"] == 131072
    assert result["details"]["parameter_size"] == "4.3B"


async def test_store_can_start_with_named_models(client_of: Any) -> None:
    client = client_of(models=["gemma3:27b", "gpt-oss:20b"])

    assert await client.names() == ["gemma3:27b", "gpt-oss:20b"]


async def test_tags_can_have_less_than_show(client: Any) -> None:
    listed = (await client.get("/api/tags"))["models"]

    tags = next(one for one in listed if one["name"] == "llava:7b")
    assert tags["capabilities"] == ["completion"]
    assert (await show(client, "llava:7b"))["capabilities"] == ["completion", "vision"]


async def test_older_server_has_fewer_details_in_tags(client_of: Any) -> None:
    client = client_of(models="herd", profile=OLDER)

    listed = (await client.get("/api/tags"))["models"]

    assert "capabilities" not in listed[0]
    assert "context_length" not in listed[0]["details"]


async def test_order_of_parameters_does_not_matter(client: Any) -> None:
    orders = {(await show(client, "llama3.2:1b"))["parameters"] for _ in range(60)}

    assert len(orders) > 1
    assert len({tuple(sorted(order.splitlines())) for order in orders}) == 1


async def test_parameters_are_written_in_the_format_of_go(client: Any) -> None:
    given = {"stop": ['"', "\n"], "temperature": 0.3, "use_mmap": True, "top_k": 2}
    await client.post("/api/create", model="x", parameters=given, **{"from": "plain"})

    lines = (await show(client, "x"))["parameters"].splitlines()

    assert sorted(line.split(maxsplit=1)[1] for line in lines) == [
        r'"\""', r'"\n"', "0.3", "2", "true",
    ]  # fmt: skip


async def test_modelfile_quotes_values_that_need_it(client: Any) -> None:
    given = {"system": " a", "template": "one\ntwo", "license": 'a\n"b"'}
    await client.post("/api/create", model="x", **given, **{"from": "plain"})

    modelfile = (await show(client, "x"))["modelfile"]

    assert 'SYSTEM " a"\n' in modelfile
    assert 'TEMPLATE "one\ntwo"\n' in modelfile
    assert 'LICENSE """a\n"b""""\n' in modelfile


async def test_dates_are_shown_in_the_zone_of_the_server(client_of: Any) -> None:
    client = client_of(models="herd", settings=Settings(zone_minutes=120))

    assert (await show(client, "plain"))["modified_at"].endswith("+02:00")


async def test_model_made_from_another_shares_its_weights(client: Any) -> None:
    exchange = await client.post("/api/create", model="mine", **{"from": "plain"})

    origin = (await show(client, "plain"))["modelfile"]
    made = (await show(client, "mine"))["modelfile"]
    assert exchange.lines[-1] == {"status": "success"}
    assert origin.split("FROM /")[1] == made.split("FROM /")[1]


async def test_create_pulls_what_is_missing(client: Any) -> None:
    exchange = await client.post("/api/create", model="mine", **{"from": "tinyllama"})

    assert exchange.lines[-1] == {"status": "success"}
    assert {"mine:latest", "tinyllama:latest"} <= set(await client.names())


async def test_create_from_an_unknown_model_fails(client: Any) -> None:
    body = {"model": "mine", "from": "nowhere", "stream": False}

    exchange = await client.ask("POST", "/api/create", body)

    assert exchange.status == 500
    assert "mine:latest" not in await client.names()


async def test_licenses_are_joined(client: Any) -> None:
    body = {"model": "x", "from": "plain", "license": ["one", "two"]}
    await client.ask("POST", "/api/create", body)

    assert (await show(client, "x"))["license"] == "one\ntwo"


async def test_copy_of_a_copy_keeps_the_digest(client_of: Any) -> None:
    client = client_of(profile=OLDER)
    await client.post("/api/pull", model="plain")
    await client.post("/api/copy", source="plain", destination="twin")

    listed = (await client.get("/api/tags"))["models"]

    assert len({one["digest"] for one in listed}) == 1


async def test_delete_removes_blobs_of_no_other_model(client: Any) -> None:
    before = set(client.world.store.blobs)
    await client.ask("DELETE", "/api/delete", {"model": "llava:7b"})

    gone = before - set(client.world.store.blobs)

    assert len(gone) == 1


async def test_missing_weights_are_noticed_only_when_needed(client: Any) -> None:
    apply_step(client.world, {"weights_deleted": "qwen3:0.6b"})

    assert "qwen3:0.6b" in await client.names()
    assert (await client.post("/api/show", model="qwen3:0.6b")).status == 404
    assert (await client.load("qwen3:0.6b", keep_alive=0)).status == 200


async def test_missing_weights_are_noticed_after_a_restart(client: Any) -> None:
    apply_step(client.world, {"weights_deleted": "qwen3:0.6b"})
    apply_step(client.world, {"server": "stopped"})
    apply_step(client.world, {"server": "started"})

    assert "qwen3:0.6b" not in await client.names()


async def test_damaged_manifest_is_not_listed_and_not_deleted(client: Any) -> None:
    apply_step(client.world, {"manifest_damaged": "plain"})

    exchange = await client.ask("DELETE", "/api/delete", {"model": "plain"})

    assert "plain:latest" not in await client.names()
    assert (exchange.status, exchange.json) == (500, {"error": "unexpected EOF"})


async def test_store_is_saved_in_a_directory(client_of: Any, tmp_path: Path) -> None:
    client = client_of(models="herd")
    persist(tmp_path, client.world)
    apply_step(client.world, {"registry": {"rate": 10_000_000}})
    await client.ask("DELETE", "/api/delete", {"model": "llama3.1:8b"})
    exchange = await client.begin("POST", "/api/pull", {"model": "smollm2:135m"})
    await client.advance(1.0)
    await exchange.close()

    other = client_of(models="none")
    persist(tmp_path, other.world)

    assert await other.names() == await client.names()
    assert other.world.store.partials == client.world.store.partials != {}


async def test_saved_store_drops_old_partial_files(
    client_of: Any, tmp_path: Path
) -> None:
    client = client_of()
    persist(tmp_path, client.world)
    exchange = await client.begin("POST", "/api/pull", {"model": "smollm2:135m"})
    await client.advance(1.0)
    await exchange.close()

    later = client_of(clock=ManualClock(EPOCH + timedelta(hours=2)))
    persist(tmp_path, later.world)

    assert later.world.store.partials == {}


async def test_blob_is_stored_and_found(client: Any) -> None:
    path = f"/api/blobs/{HELLO}"

    statuses = [
        (await client.ask(method, path, body="hello")).status
        for method in ("HEAD", "POST", "POST", "HEAD")
    ]

    assert statuses == [404, 201, 200, 200]


@pytest.mark.parametrize(
    ("method", "path", "body", "text"),
    [
        ("POST", "/api/show", "{bad", "invalid character 'b' looking for"),
        ("POST", "/api/show", "<h1>", "invalid character '<' looking for"),
        ("POST", "/api/show", "null", "model is required"),
        ("POST", "/api/show", "true", "cannot unmarshal bool into"),
        ("POST", "/api/show", '"x"', "cannot unmarshal string into"),
        ("POST", "/api/chat", '{"messages": {}}', "cannot unmarshal object into"),
        ("POST", "/api/embed", '{"model": "bad name"}', "invalid model name"),
        ("POST", "/api/generate", '{"model": "a b"}', "invalid model name"),
    ],
)
async def test_invalid_request_is_refused(
    client: Any, method: str, path: str, body: str, text: str
) -> None:
    exchange = await client.ask(method, path, body=body)

    assert exchange.status == 400
    assert text in exchange.json["error"]


async def test_older_server_does_not_report_invalid_names(client_of: Any) -> None:
    client = client_of(profile=OLDER)

    exchange = await client.load("bad name")

    assert exchange.json == {"error": "model 'bad name' not found"}


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:11434", 200),
        ("[::1]:11434", 200),
        ("10.0.0.7", 200),
        ("8.8.8.8", 403),
    ],
)
async def test_host_of_the_request_has_to_be_local(
    client: Any, host: str, status: int
) -> None:
    exchange = await client.ask("GET", "/api/ps", headers={"Host": host})

    assert exchange.status == status


async def test_vision_model_accepts_images(client: Any) -> None:
    exchange = await client.load(
        "llava:7b", prompt="a", images=["aGVsbG8="], stream=False
    )

    assert exchange.json["done_reason"] == "stop"


async def test_embedding_in_the_older_format_can_be_empty(client: Any) -> None:
    exchange = await client.post("/api/embeddings", model="nomic-embed-text")

    assert exchange.json == {"embedding": []}


async def test_openai_endpoints_use_their_own_format(client: Any) -> None:
    missing = await client.ask("GET", "/v1/models/missing")
    chat = await client.post("/v1/chat/completions", model="nomic-embed-text")

    assert (await client.get("/v1/models/plain"))["id"] == "plain"
    assert missing.json["error"]["type"] == "not_found_error"
    assert chat.json["error"]["type"] == "invalid_request_error"


async def test_answer_is_streamed_word_by_word(client: Any) -> None:
    await client.load("plain")
    exchange = await client.begin(
        "POST", "/api/chat", {"model": "plain", "messages": [{"role": "user"}]}
    )

    for _ in range(9):
        await client.advance(client.world.settings.token_s)

    words = [one["message"]["content"] for one in exchange.lines]
    assert "".join(words) == "This is a simulated answer from the sandbox."
    assert exchange.lines[-1]["done_reason"] == "stop"
