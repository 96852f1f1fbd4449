"""One unreadable entry in a server's list affects only that entry."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.manager_fixture import (
    SandboxServer,
    recorded_events,
    serve_manager,
    serve_sandbox,
)

from herdbook.core import ManagerSettings, ModelManager
from herdbook.core.errors import BadAnswerError
from herdbook.core.ollama.entries import (
    LONGEST_ENTRY,
    MODELS,
    MOST_ENTRIES,
    MOST_PARTS,
    RUNNERS,
    read_list,
    unreadable_text,
)
from herdbook.core.ollama.wire import TagEntry
from herdbook.core.operations.loads import UnloadResult

LOADED = "llava:7b"
OTHER = "plain:latest"
ODD = (
    *("null", "NaN", "-Infinity", "-1", "1.5", "1e999", "9" * 400, "9" * 5000, "true"),
    *('""', '" "', '"\\ud800"', '"\\u202ex:1"', '"x:1\\n"', '"a b"', '"x\\u0000"'),
    *("{}", "[]", "[" * 3000 + "]" * 3000, json.dumps("x" * 100_000), "'", "nonsense"),
    json.dumps("9" * 1_100_000),
)
FIELDS = ("name", "digest", "size", "details", "capabilities", "modified_at", "extra")
RUNNER_FIELDS = ("name", "digest", "size", "size_vram", "expires_at", "context_length")


def text_of(entries: list[dict[str, str]]) -> str:
    """Return a list whose fields are written as they are, JSON or not."""
    written = (
        "{" + ",".join(f'"{key}":{value}' for key, value in entry.items()) + "}"
        for entry in entries
    )
    return '{"models":[' + ",".join(written) + "]}"


async def shown_by(server: SandboxServer, path: str) -> list[dict[str, str]]:
    """Return the entries of a list, each field as JSON."""
    entries = (await server.request("GET", path)).json()["models"]
    return [{key: json.dumps(v) for key, v in entry.items()} for entry in entries]


async def looked_at(
    server: SandboxServer, manager: ModelManager, path: str, body: str
) -> tuple[set[str], list[str]]:
    """Look once at an odd list; return what was seen, and what was recorded."""
    before = (await manager.now()).position
    server.apply(answer={"path": path, "status": 200, "body": body})
    look = await manager.refresh()
    return {*look.models}, [
        one.type for one in await recorded_events(manager, after=before)
    ]


@settings(max_examples=40, deadline=None)
@given(field=st.sampled_from(FIELDS), value=st.sampled_from(ODD) | st.none())
def test_invalid_list_entry_does_not_affect_the_others(
    field: str, value: str | None
) -> None:
    async def look() -> None:
        async with serve_sandbox("herd") as server:
            await server.load(LOADED)
            async with server.open_manager() as manager:
                entries = await shown_by(server, MODELS)
                names = {json.loads(entry["name"]) for entry in entries}
                odd = next(e for e in entries if json.loads(e["name"]) == LOADED)
                if value is None:
                    odd.pop(field, None)
                else:
                    odd[field] = value
                seen, happened = await looked_at(
                    server, manager, MODELS, text_of(entries)
                )
                assert names - {LOADED} <= seen <= names
                assert happened == []
                assert (await manager.get_status(LOADED)).state == "loaded"

    asyncio.run(look())


@settings(max_examples=40, deadline=None)
@given(field=st.sampled_from(RUNNER_FIELDS), value=st.sampled_from(ODD) | st.none())
def test_invalid_runner_unloads_nothing(field: str, value: str | None) -> None:
    async def look() -> None:
        async with serve_sandbox("herd") as server:
            await server.load(LOADED)
            async with server.open_manager() as manager:
                entries = await shown_by(server, RUNNERS)
                if value is None:
                    entries[0].pop(field, None)
                else:
                    entries[0][field] = value
                _, happened = await looked_at(
                    server, manager, RUNNERS, text_of(entries)
                )
                assert {*happened} <= {"RunnerChanged"}
                assert (await manager.get_status(LOADED)).state == "loaded"

    asyncio.run(look())


@pytest.mark.parametrize("odd", ["null", "7", '"x"', "[]", "{}", "[[[", "}"])
async def test_entry_that_is_not_an_object_is_skipped_alone(odd: str) -> None:
    good = '{"name":"x:1","digest":"' + "a" * 64 + '"}'
    body = f'{{"models":[{good},{odd},{good.replace("x:1", "y:1")}]}}'.encode()
    if odd in {"[[[", "}"}:  # its end cannot be recognized
        with pytest.raises(BadAnswerError):
            await read_list(body, TagEntry, source=MODELS, node="it")
        return
    found = await read_list(body, TagEntry, source=MODELS, node="it")
    assert [entry.name for entry in found.entries] == ["x:1", "y:1"]
    assert [entry.name for entry in found.unreadable] == ["(no name)"]


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"models":{}}', b'{"models":[{'])
async def test_answer_without_a_list_is_a_bad_answer(body: bytes) -> None:
    with pytest.raises(BadAnswerError):
        await read_list(body, TagEntry, source=MODELS, node="it")


async def test_null_is_an_empty_list() -> None:
    found = await read_list(b'{"models":null}', TagEntry, source=MODELS, node="it")
    assert (found.entries, found.unreadable) == ([], ())


def a_list(*entries: tuple[str, str], **more: Any) -> bytes:
    models = [{"name": name, "digest": digest * 64, **more} for name, digest in entries]
    return json.dumps({"models": models}).encode()


async def test_name_with_two_digests_is_kept_once() -> None:
    body = a_list(("a:1", "a"), ("b:1", "b"), ("a:1", "c"), ("b:1", "b"))
    found = await read_list(body, TagEntry, source=MODELS, node="it")

    kept = [(entry.name, entry.digest[:1]) for entry in found.entries]
    assert kept == [("a:1", "a"), ("b:1", "b")]
    assert {one.digest for one in found.unreadable} == {"c" * 64}
    assert unreadable_text(found.unreadable) == (
        "1 entry in the server's lists was skipped: a:1 (/api/tags: it is listed "
        "again, with another digest: cccccccccccc)"
    )


async def test_list_is_read_up_to_a_limit() -> None:
    names = [(f"m{number}:1", "a") for number in range(MOST_ENTRIES[MODELS] + 5)]
    found = await read_list(a_list(*names), TagEntry, source=MODELS, node="it")

    assert len(found.entries) == MOST_ENTRIES[MODELS]
    assert [one.reason for one in found.unreadable] == ["the list has 5,005 entries"]


async def test_entry_that_is_very_long_is_not_decoded() -> None:
    body = a_list(("a:1", "a"), license="x" * LONGEST_ENTRY)
    found = await read_list(body, TagEntry, source=MODELS, node="it")

    assert [one.name for one in found.unreadable] == ["(no name)"]


async def test_invalid_names_are_shown_but_never_recorded(tmp_path: Path) -> None:
    odd = ["", "a/../b:1", "a\nb:1", "x", "x:1\n", "registry.ollama.ai/library/x:1"]
    odd.append("h" * 340 + "/" + "n" * 80 + "/" + "m" * 80)
    async with (
        serve_sandbox("herd") as server,
        server.open_manager(tmp_path / "herd.db") as manager,
    ):
        entries = await shown_by(server, MODELS)
        digest = json.dumps("f" * 64)
        entries += [{"name": json.dumps(name), "digest": digest} for name in odd]
        before = (await manager.now()).position
        server.apply(answer={"path": MODELS, "status": 200, "body": text_of(entries)})
        look = await manager.refresh()

        assert len(look.unreadable) == len(odd)
        assert all(one.name.isprintable() for one in look.unreadable)
        assert all(len(one.name) <= 100 for one in look.unreadable)
        assert (await manager.now()).position == before


async def test_deleted_model_vanishes_despite_an_unreadable_entry() -> None:
    async with serve_manager() as (server, manager):
        entries = await shown_by(server, MODELS)
        odd = {"name": "null"}
        whole = text_of([*entries, odd])
        assert (await looked_at(server, manager, MODELS, whole))[1] == []
        gone = text_of([e for e in entries if json.loads(e["name"]) != OTHER] + [odd])
        assert (await looked_at(server, manager, MODELS, gone))[1] == ["ModelVanished"]


async def test_unload_is_refused_if_the_runner_cannot_be_read() -> None:
    patience = ManagerSettings(unload_timeout_s=1)
    async with serve_manager(settings=patience) as (server, manager):
        await manager.load(LOADED)
        (runner,) = await shown_by(server, RUNNERS)
        odd = text_of([{**runner, "size": "-1"}])
        whole = {"path": RUNNERS, "status": 200, "body": text_of([runner])}
        server.apply(answer={**whole, "times": 1})
        server.apply(answer={**whole, "body": odd, "times": 99})

        assert await manager.unload(LOADED) is UnloadResult.DEFERRED
        assert (await manager.get_status(LOADED)).state == "loaded"


async def test_doctor_names_what_cannot_be_read() -> None:
    async with serve_manager() as (server, manager):
        entries = await shown_by(server, MODELS)
        body = text_of([*entries, {"name": '"模型:最新"', "digest": "7"}])
        server.apply(answer={"path": MODELS, "status": 200, "body": body})
        (found,) = [one for one in await manager.doctor() if one.check == "entries"]

        assert found.level == "warning"
        assert "1 entry" in found.what
        assert "模型:最新" in found.what


async def test_unreadable_show_answer_skips_only_that_detection() -> None:
    async with serve_sandbox("herd") as server:
        await server.load(LOADED)
        body = '{"details":{},"template":"' + "x" * (17 * 2**20) + '"}'
        server.apply(answer={"path": "/api/show", "status": 200, "body": body})
        async with server.open_manager() as manager:
            assert (await manager.node_status()).reached
            statuses = await manager.all_statuses()
            assert all(status.present for status in statuses)
            assert (await manager.get_status(LOADED)).state == "loaded"


async def test_list_with_too_many_parts_is_a_bad_answer() -> None:
    body = b'{"models":[' + b"1," * MOST_PARTS + b"1,1]}"
    with pytest.raises(BadAnswerError, match="parts"):
        await read_list(body, TagEntry, source=MODELS, node="it")
