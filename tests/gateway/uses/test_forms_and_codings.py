"""Uses whose request is a form, and whose answer is compressed."""

from __future__ import annotations

import asyncio
import gzip
import zlib

import httpx
import pytest
from support.gateway.scripted import (
    OK,
    CollectedUses,
    gateway,
    request_of,
    scripted_server,
)

from herdbook.gateway.access.checks import Caller
from herdbook.gateway.access.limits import Limits
from herdbook.gateway.recording.compression import Decoder
from herdbook.gateway.recording.multipart import FormScan

FORM = (
    b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n'
    b'Content-Type: audio/wav\r\n\r\nRIFF\r\n--xy name="model"\r\n\r\nno\r\n--xyz\r\n'
    b'Content-Disposition: form-data; name="model"\r\n\r\nwhisper:1b\r\n--xyz\r\n'
    b'Content-Disposition: form-data; name="model"\r\n\r\nother\r\n--xyz--\r\n'
)
ANSWER = b'{"done":false}\n' * 10_000 + b'{"done":true,"eval_count":4}\n'


@pytest.mark.parametrize("size", [1, 2, 7, 64, 1_000])
def test_field_of_a_form_is_found_in_pieces_of_any_size(size: int) -> None:
    scan = FormScan(("model", "language"))
    for at in range(0, len(FORM), size):
        scan.feed(FORM[at : at + size])
    assert scan.found == {"model": "whisper:1b"}


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"a"}',
        b"",
        b"--" + b"x" * 10_000,
        FORM.replace(b"whisper", b"w" * 5_000).replace(b"other", b"o" * 5_000),
        b"--xyz\r\n" + b"X: y\r\n" * 1_000 + FORM,
    ],
)
def test_body_that_is_not_a_form_names_no_model(body: bytes) -> None:
    scan = FormScan(("model",))
    scan.feed(body)
    assert scan.found == {}


async def test_transcription_is_a_use_of_its_model() -> None:
    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await request_of(reader)
        body = b'{"text":"hello"}'
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
        writer.write(body)

    uses = CollectedUses()
    async with scripted_server(script) as server, gateway(server.url, uses) as address:
        async with httpx.AsyncClient() as client:
            await client.post(
                f"{address}/v1/audio/transcriptions",
                data={"model": "whisper:1b"},
                files={"file": ("a.wav", b"RIFF" * 50_000)},
            )
        use = await uses.first()
    assert use.model == "whisper:1b"
    assert use.unreported.pieces == 0


@pytest.mark.parametrize(
    ("coding", "whole"),
    [
        ("gzip", gzip.compress(ANSWER)),
        ("GZIP", gzip.compress(ANSWER)),
        ("deflate", zlib.compress(ANSWER)),
    ],
)
async def test_tokens_of_a_compressed_answer_are_recorded(
    coding: str, whole: bytes
) -> None:
    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await request_of(reader)
        head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\n"
        writer.write(f"{head}Content-Length: {len(whole)}\r\n\r\n".encode())
        for at in range(0, len(whole), 50):
            writer.write(whole[at : at + 50])
            await writer.drain()

    uses = CollectedUses()
    async with scripted_server(script) as server, gateway(server.url, uses) as address:
        async with httpx.AsyncClient() as client:
            asked = client.stream("POST", f"{address}/api/chat", json={"model": "m"})
            async with asked as answer:
                received = b"".join([one async for one in answer.aiter_raw()])
        use = await uses.first()
    assert received == whole
    assert use.counts.output_tokens == 4


def test_compressed_data_is_read_in_small_pieces() -> None:
    bomb = gzip.compress(bytes(5_000_000))
    sizes = [len(piece) for piece in Decoder(b"gzip").pieces(bomb)]
    assert sum(sizes) == 5_000_000
    assert max(sizes) <= 65_536


@pytest.mark.parametrize("coding", [b"br", b"zstd", b"gzip, gzip", b""])
def test_other_codings_are_not_read(coding: bytes) -> None:
    assert list(Decoder(coding).pieces(ANSWER)) == []
    assert list(Decoder(b"gzip").pieces(ANSWER)) == []


@pytest.mark.parametrize(
    ("method", "path", "limits", "left_out"),
    [
        ("GET", "/api/tags", Limits(models=("a*",)), True),
        ("GET", "/api/tags", Limits(tokens_per_day=9), False),
        ("POST", "/api/chat", Limits(tokens_per_day=9), True),
        ("POST", "/api/chat", Limits(max_requests=9), False),
    ],
)
async def test_server_compresses_no_answer_that_the_gateway_must_read(
    method: str, path: str, limits: Limits, left_out: bool
) -> None:
    heads: list[bytes] = []

    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        heads.append((await request_of(reader))[0].lower())
        writer.write(OK)

    def authenticate(_: str) -> Caller:
        return Caller(name="ann", actor="api:ann", role="admin", limits=limits)

    async with (
        scripted_server(script) as server,
        gateway(server.url, authenticate=authenticate) as address,
        httpx.AsyncClient(base_url=address) as client,
    ):
        headers = {"Authorization": "Bearer x", "Accept-Encoding": "gzip"}
        answer = await client.request(method, path, headers=headers)
    assert answer.status_code == 200
    assert (b"accept-encoding" not in heads[0]) is left_out
