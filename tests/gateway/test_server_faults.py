"""What a client gets when the server fails, in the form of the API that it used."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import httpx
import pytest
from support.gateway.scripted import (
    OK,
    CollectedUses,
    gateway,
    raw_connection,
    request_of,
    scripted_server,
    until,
)

from herdbook.events.facts import UseOutcome

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CHAT = (
    b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 13\r\n\r\n"
    b'{"model":"m"}'
)
CHAT_IN_CHUNKS = (
    b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'd\r\n{"model":"m"}\r\n0\r\n\r\n'
)
PULL = CHAT.replace(b"chat", b"pull")
GET = b"GET /api/tags HTTP/1.1\r\nHost: localhost\r\n\r\n"


def unused() -> str:
    """Return an address that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"http://127.0.0.1:{listening.getsockname()[1]}"


def message(path: str, body: Any) -> str:
    """Return the message of an error in the form of the API; its form is checked."""
    if path.startswith("/v1/messages"):
        assert body["type"] == "error"
        assert body["request_id"].startswith("req_")
        assert body["error"]["type"] == "api_error"
        text = body["error"]["message"]
    elif path.startswith("/v1/"):
        assert set(body["error"]) == {"message", "type", "param", "code"}
        text = body["error"]["message"]
    else:
        assert set(body) == {"error"}
        text = body["error"]
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize(
    "path", ["/api/chat", "/v1/chat/completions", "/v1/messages", "/any"]
)
async def test_a_server_that_is_away_is_reported_in_the_form_of_the_api(
    path: str,
) -> None:
    uses = CollectedUses()
    async with gateway(unused(), uses) as address, httpx.AsyncClient() as client:
        answer = await client.post(address + path, json={"model": "m"})

    assert answer.status_code == 502
    assert message(path, answer.json()).startswith(
        "Cannot connect to the Ollama server at"
    )
    assert [(use.model, use.failure) for use in uses.all] == (
        [] if path == "/any" else [("m", "node_unreachable")]
    )


async def test_a_server_that_closes_before_it_answers_is_a_bad_gateway() -> None:
    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await request_of(reader)

    async with scripted_server(script) as server, gateway(server.url) as address:
        async with httpx.AsyncClient() as client:
            answer = await client.post(f"{address}/api/chat", json={"model": "m"})
    assert answer.status_code == 502
    assert answer.json() == {
        "error": "The server closed the connection before its answer was complete."
    }


async def test_a_server_that_dies_in_the_middle_leaves_an_incomplete_answer() -> None:
    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await request_of(reader)
        writer.write(HEAD + b"1\r\nx\r\n")
        await writer.drain()

    uses = CollectedUses()
    async with scripted_server(script) as server, gateway(server.url, uses) as address:
        async with httpx.AsyncClient() as client:
            with pytest.raises(httpx.RemoteProtocolError):
                await client.post(f"{address}/api/chat", json={"model": "m"})
    (use,) = uses.all
    assert (use.outcome, use.failure) == (UseOutcome.FAILED, "node_unreachable")


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
async def test_an_answer_that_is_not_http_is_a_bad_gateway(answer: bytes) -> None:
    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await request_of(reader)
        writer.write(answer)
        await reader.read()

    async with scripted_server(script) as server, gateway(server.url) as address:
        async with httpx.AsyncClient() as client:
            received = await client.get(f"{address}/api/tags")
    assert received.status_code == 502
    assert received.json() == {"error": "The server sent an answer that is not HTTP."}


async def test_a_second_answer_is_dropped_with_its_connection() -> None:
    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await request_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na" * 2)
        await reader.read()

    async with scripted_server(script) as server, gateway(server.url) as address:
        async with httpx.AsyncClient() as client:
            for _ in range(2):
                answer = await client.get(f"{address}/api/tags")
                assert answer.text == "a"
        await until(lambda: server.open == 0)
        assert server.connections == 2


async def test_bytes_that_nothing_asked_for_close_the_connection() -> None:
    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await request_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await asyncio.sleep(0.05)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        await reader.read()

    async with scripted_server(script) as server, gateway(server.url) as address:
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"{address}/api/tags")).text == ""
            await until(lambda: server.open == 0)


async def test_a_server_that_was_restarted_is_connected_to_again() -> None:
    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await request_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with scripted_server(script) as server, gateway(server.url) as address:
        async with raw_connection(address) as client:
            for _ in range(3):
                client.send(CHAT)
                assert await client.head()
                assert await client.exactly(2) == b"ok"
                await until(lambda: server.open == 0)
                await asyncio.sleep(0.01)
        assert server.connections == 3


@pytest.mark.parametrize(
    ("request_", "answers"),
    [(GET, 2), (CHAT, 2), (CHAT_IN_CHUNKS, 2), (PULL, 1)],
    ids=["read", "use", "use in chunks", "change"],
)
async def test_a_connection_that_closes_under_a_request_is_replaced(
    request_: bytes, answers: int
) -> None:
    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await request_of(reader)
        writer.write(OK)
        await request_of(reader)  # and is closed instead of an answer

    async with scripted_server(script) as server, gateway(server.url) as address:
        async with raw_connection(address) as client:
            client.send(request_)
            assert (await client.head()).startswith(b"HTTP/1.1 200 ")
            assert await client.exactly(2) == b"ok"
            client.send(request_)
            second = await client.head()
        assert second.startswith(b"HTTP/1.1 200 " if answers == 2 else b"HTTP/1.1 502 ")
        assert server.connections == answers
