"""Faults and the sandbox's own paths, and answers that no Ollama gives."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from herdbook.sandbox import apply_step
from herdbook.sandbox.refusals import Refusal


async def test_control_step_over_http_takes_effect(client: Any) -> None:
    exchange = await client.post("/sandbox/did", manifest_deleted="plain:latest")

    assert exchange.json == {"now": 0.0, "down": False}
    assert "plain:latest" not in await client.names()


async def test_clock_can_be_moved_over_http(client: Any) -> None:
    await client.load("plain", keep_alive="10m")

    await client.post("/sandbox/clock", advance=601)

    assert await client.loaded() == []


async def test_clock_can_be_read_over_http(client: Any) -> None:
    await client.advance(5.0)

    assert await client.get("/sandbox/clock") == {"now": 5.0, "down": False}


async def test_server_can_be_restarted_over_http(client: Any) -> None:
    await client.post("/sandbox/faults", server="killed")
    await client.post("/sandbox/faults", server="started")

    assert await client.get("/api/ps") == {"models": []}


async def test_received_requests_are_listed(client: Any) -> None:
    await client.get("/api/ps")
    await client.post("/api/show", model="nowhere:7b")

    ps, show = (await client.get("/sandbox/seen"))["seen"]

    ended = {
        "at": 0.0,
        "agent": ps["agent"],
        "authorization": "",
        "ended": "answered",
        "until": 0.0,
    }
    asked = {"method": "GET", "path": "/api/ps", "model": "", "status": 200}
    assert ps == ended | asked
    asked = {"method": "POST", "path": "/api/show", "model": "nowhere:7b"}
    assert show == ended | asked | {"status": 404}


async def test_request_and_answer_take_time(client: Any) -> None:
    client.world.delays = lambda path: (2.0, 3.0) if path == "/api/ps" else (60.0, 0.0)

    await client.get("/api/ps")

    (seen,) = client.world.seen
    assert seen.until == pytest.approx(5.0, abs=0.2)  # the client looks now and then


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/sandbox/did", {"earthquake": 9}, "unknown step: earthquake"),
        ("/sandbox/did", {"server": "sleeping"}, "'sleeping' is not one of killed"),
        ("/sandbox/did", {"registry": {"speed": 1}}, "registry: "),
        ("/sandbox/did", {"weights_deleted": "missing"}, "model 'missing' not found"),
        ("/sandbox/did", [], "Expected `object`"),
        ("/sandbox/clock", {"forward": 1}, "Object contains unknown field"),
    ],
)
async def test_unknown_step_is_refused(
    client: Any, path: str, body: Any, words: str
) -> None:
    exchange = await client.ask("POST", path, body)

    assert exchange.status == 400
    assert words in exchange.json["error"]


async def test_unknown_path_of_the_sandbox_is_not_found(client: Any) -> None:
    assert (await client.ask("GET", "/sandbox/nothing")).status == 404


def test_unknown_step_changes_nothing(client: Any) -> None:
    with pytest.raises(Refusal):
        apply_step(client.world, {"manifest_deleted": "plain", "earthquake": 9})

    assert client.world.store.entries


async def test_proxy_fault_answers_once(client: Any) -> None:
    apply_step(client.world, {"answer": {"body": "<h1>Bad Gateway</h1>"}})

    exchange = await client.ask("GET", "/api/tags")

    assert exchange.status == 502
    assert exchange.headers["content-type"] == "text/html"
    assert exchange.raw == b"<h1>Bad Gateway</h1>"
    assert await client.names()


async def test_answer_can_be_scripted_per_path_and_repeated(
    client: Any,
) -> None:
    script = {
        "path": "/api/ps",
        "times": 2,
        "status": 302,
        "headers": {"location": "/"},
    }
    apply_step(client.world, {"answer": script})

    statuses = [(await client.ask("GET", "/api/ps")).status for _ in range(3)]

    assert statuses == [302, 302, 200]
    assert await client.names()


async def test_permanent_answers_end_when_cleared(client: Any) -> None:
    apply_step(client.world, {"answer": {"times": 0, "status": 500}})
    statuses = [(await client.ask("GET", "/api/ps")).status for _ in range(3)]
    apply_step(client.world, {"answer": None})

    assert statuses == [500] * 3
    assert await client.get("/api/ps") == {"models": []}


async def test_stream_can_contain_garbage(client: Any) -> None:
    broken = base64.b64encode(b'{"status":"\xff\xfe"}\n').decode()
    apply_step(client.world, {"answer": {"after_lines": 2, "body_base64": broken}})

    exchange = await client.ask("POST", "/api/pull", {"model": "plain"})

    assert exchange.status == 200
    assert exchange.raw.splitlines()[2] == b'{"status":"\xff\xfe"}'
    assert exchange.whole


async def test_answer_can_hang(client: Any) -> None:
    apply_step(client.world, {"answer": {"hang": True}})

    exchange = await client.begin("GET", "/api/tags")
    await client.advance(3600.0)

    assert (exchange.status, exchange.task.done()) == (None, False)
    await exchange.close()


async def test_answer_can_hang_after_its_start(client: Any) -> None:
    apply_step(client.world, {"answer": {"hang": True, "status": 200, "body": "{"}})

    exchange = await client.begin("GET", "/api/tags")

    assert (exchange.status, exchange.raw, exchange.whole) == (200, b"{", False)
    await exchange.close()


async def test_answer_can_be_endless(client: Any) -> None:
    apply_step(client.world, {"answer": {"repeat": True, "status": 200, "body": "x"}})

    exchange = await client.begin("GET", "/api/tags")

    assert len(exchange.raw) > 1
    await exchange.close()
    assert exchange.task.done()


async def test_answer_can_be_cut_off(client: Any) -> None:
    apply_step(client.world, {"answer": {"cut": True, "status": 200, "body": '{"mod'}})

    exchange = await client.begin("GET", "/api/tags")

    assert exchange.cut
    assert not exchange.whole


async def test_real_answer_can_be_delayed(client: Any) -> None:
    apply_step(client.world, {"answer": {"delay_s": 30, "truthful": True}})

    exchange = await client.begin("GET", "/api/ps")
    assert exchange.status is None
    await client.advance(31.0)

    assert exchange.json == {"models": []}


async def test_client_that_disconnects_before_its_body_is_dropped(
    client: Any,
) -> None:
    exchange = await client.begin("GET", "/api/ps")
    again = type(exchange)(client.world, {"path": "/api/ps"})
    again._body = None
    await again.close()

    assert again.task.done()
    assert len(client.world.seen) == 1
