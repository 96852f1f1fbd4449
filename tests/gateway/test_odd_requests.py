"""Requests that few clients send are relayed, recorded correctly, or refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.gateway.recording import LIMITS, RecordingGateway, recording_gateway
from support.gateway.scripted import raw_connection

from herdbook.events.facts import ModelUsed, UseFailed
from herdbook.gateway.access.limits import Limits
from herdbook.gateway.recording import recorder

MODEL = "llama3.2:3b"
OTHER = "smollm2:135m"
HEAD = b"Host: localhost\r\nContent-Type: application/json\r\n"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Record a tenth of a second after a use instead of a whole one."""
    monkeypatch.setattr(recorder, "COLLECT_S", 0.1)


async def sent(
    there: RecordingGateway,
    body: bytes,
    start: bytes = b"POST /api/generate HTTP/1.1",
    **of: Any,
) -> bytes:
    """Send a request, and return all that is answered until the connection ends."""
    head = of.get("head", HEAD) + b"Connection: close\r\n"
    async with raw_connection(there.address) as client:
        client.send(start + b"\r\n" + head)
        client.send(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        return await client.rest()


def asking(model: str = MODEL, **more: Any) -> bytes:
    body = {"model": model, "prompt": "x", "stream": False, **more}
    return json.dumps(body).encode()


async def used(there: RecordingGateway, kind: type = ModelUsed) -> str:
    """Return the model of the first use that is recorded."""
    (event, *_) = await there.wait_for(kind)
    return event.stream.rpartition("/")[2]


async def test_whole_url_as_target_is_recorded_like_its_path() -> None:
    async with recording_gateway() as there:
        start = b"POST http://localhost/api/generate?x=1 HTTP/1.1"
        answer = await sent(there, asking(), start)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert await used(there) == MODEL


async def test_whole_url_as_target_does_not_avoid_the_limits_of_a_token() -> None:
    LIMITS["ann"] = Limits(models=("smollm2*",))
    try:
        async with recording_gateway(tokens=True) as there:
            head = HEAD + b"Authorization: Bearer key-ann\r\n"
            start = b"GET http://localhost/api/tags HTTP/1.1"
            listed = await sent(there, b"", start, head=head)
            start = b"POST http://localhost/api/generate HTTP/1.1"
            refused = await sent(there, asking(), start, head=head)
    finally:
        LIMITS.clear()
    names = json.loads(listed.partition(b"\r\n\r\n")[2])["models"]
    assert [one["name"] for one in names] == [OTHER]
    assert refused.startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize(
    ("body", "name"),
    [
        # Go ignores the case of keys, and the last of several keys counts.
        (b'{"model": "%b", "MODEL": "%b", "prompt": "x"}', OTHER),
        (b'{"Model": "%b", "model": "%b", "prompt": "x"}', OTHER),
        (b'{"model": "%b", "model": "%b", "prompt": "x"}', OTHER),
        (b'{"mod\\u0065l": "%b", "prompt": "%b"}', MODEL),
        (b' \r\n\t{"model" : "%b"\n, "prompt": "%b"}', MODEL),
        (b'{"a": {"model": 1}, "b": ["model"], "model": "%b", "prompt": "%b"}', MODEL),
    ],
)
async def test_use_is_recorded_for_the_model_that_the_server_used(
    body: bytes, name: str
) -> None:
    async with recording_gateway() as there:
        await there.manager.configure(MODEL, {"temperature": 0.5})
        answer = await sent(there, body % (MODEL.encode(), OTHER.encode()))
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        assert await used(there) == name


async def test_escaped_name_is_recorded_as_it_is_spelled() -> None:
    async with recording_gateway() as there:
        name = "".join(f"\\u{ord(letter):04x}" for letter in MODEL)
        await sent(there, b'{"model": "%b", "prompt": "x"}' % name.encode())
        assert await used(there) == MODEL


@pytest.mark.parametrize("key", ["context", "model"])
async def test_deeply_nested_request_is_relayed_unchanged(key: str) -> None:
    async with recording_gateway() as there:
        await there.manager.configure(MODEL, {"temperature": 0.5})
        deep = b"[" * 200_000 + b"]" * 200_000
        body = b'{"model": "%b", "prompt": "x", "%b": %b}'
        answer = await sent(there, body % (MODEL.encode(), key.encode(), deep))
        assert answer.startswith(b"HTTP/1.1 400 "), answer[:200]
        again = await sent(there, asking())
        assert again.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "body", [b"\xef\xbb\xbf" + asking(), asking(seed=float("nan")), b"\xff"]
)
async def test_body_that_is_not_json_is_left_to_the_server(body: bytes) -> None:
    async with recording_gateway() as there:
        await there.manager.configure(MODEL, {"temperature": 0.5})
        answer = await sent(there, body)
        assert answer.startswith(b"HTTP/1.1 400 "), answer
        assert any(one.path == "/api/generate" for one in there.world.seen)


async def test_client_of_http_1_0_needs_no_host() -> None:
    async with recording_gateway() as there:
        answer = await sent(
            there,
            asking(stream=True),
            b"POST /api/generate HTTP/1.0",
            head=b"Expect: 100-continue\r\n",
        )
        assert answer.startswith(b"HTTP/1.1 200 "), answer[:100]
        assert b"chunked" not in answer.partition(b"\r\n\r\n")[0]
        assert json.loads(answer.splitlines()[-1])["done"] is True
        assert await used(there) == MODEL


async def test_long_name_is_not_repeated_in_an_error() -> None:
    async with recording_gateway() as there:
        answer = await sent(there, asking(f"{'a' * 100_000},b"))
        assert answer.startswith(b"HTTP/1.1 404 ")
        assert len(answer) < 1_000


async def test_failed_use_of_an_unreadable_request_is_not_recorded() -> None:
    async with recording_gateway() as there:
        await sent(there, b"{")
        await sent(there, asking())
        assert await used(there) == MODEL
        assert not await there.events(UseFailed)


HALF = json.dumps("cut \ud83d")


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"role:fast","prompt":%b,"stream":false}' % HALF.encode(),
        # As programs in C# write their fields.
        b'{"Model":"role:fast","Prompt":"x","Stream":false}',
        b'{"model":"role:fast","prompt":"\xff","stream":false}',
    ],
)
async def test_what_go_reads_leniently_is_changed_as_well(body: bytes) -> None:
    async with recording_gateway() as there:
        await there.manager.configure(MODEL, {"temperature": 0.5})
        answer = await sent(there, body)
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        assert b"X-Herdbook-Settings: temperature=0.5\r\n" in answer
        assert await used(there) == MODEL


@pytest.mark.parametrize(
    "body",
    [b'{"model":"\xff"}', b'{"\xff":1}', b'{"model":"a","keep_alive":"\xff"}'],
)
async def test_what_is_not_utf_8_is_left_to_the_server(body: bytes) -> None:
    async with recording_gateway() as there:
        await there.manager.configure(MODEL, {"temperature": 0.5, "keep_alive": 60})
        before = len(there.world.seen)
        await sent(there, body)
        assert len(there.world.seen) > before
