"""Scheduled anchors: to a file and to a URL, with retries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.log_lines import append

from herdbook.core import Storage, SystemClock
from herdbook.core.clock import ManualClock
from herdbook.core.errors import CallerError
from herdbook.core.proof.anchor import parse_anchors
from herdbook.core.proof.anchor_file import read_anchor_file
from herdbook.core.proof.keys import new_key
from herdbook.core.proof.proof import check_anchors, make_anchor
from herdbook.core.upkeep import publish
from herdbook.core.upkeep.anchors import AnchorSchedule, scheduled_anchors
from herdbook.core.upkeep.publish import NotPublishedError, check_url, post_text
from herdbook.core.upkeep.recurring import Recurring

HOUR = 3600.0


class Receiver:
    """A web server that keeps what it is sent.

    Attributes:
        answers: What it answers, in turn; then 204.
        bodies: What it was sent.
        heads: The heads of the requests.
    """

    def __init__(self) -> None:
        self.answers: list[bytes] = []
        self.bodies: list[str] = []
        self.heads: list[str] = []
        self.url = ""

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = int(head.lower().partition("content-length: ")[2].split("\r\n")[0])
        self.bodies.append((await reader.readexactly(length)).decode())
        self.heads.append(head)
        answer = self.answers.pop(0) if self.answers else b"HTTP/1.1 204 Done\r\n\r\n"
        writer.write(answer)
        await writer.drain()
        if answer:
            writer.close()
        else:  # never answer
            await reader.read()
            writer.close()


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    receiver.url = f"http://127.0.0.1:{port}/anchors"
    async with server:
        yield receiver


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that real I/O leads to."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running(*work: Recurring) -> AsyncIterator[None]:
    if not work:
        yield
        return
    async with work[0].running(), running(*work[1:]):
        yield


async def test_anchors_are_appended_to_a_file(log: Path, tmp_path: Path) -> None:
    file = tmp_path / "anchors.txt"
    await append(log, 3)
    clock = ManualClock()
    schedule = AnchorSchedule(every_s=HOUR, files=(file,))

    (work,) = scheduled_anchors(log, schedule, clock=clock)
    async with work.running():
        await until(file.exists)
        await until(lambda: work.status.last_position == 3)
        await append(log, 2, start=3)
        await clock.advance(HOUR)
        await until(lambda: work.status.last_position == 5)

    anchors = read_anchor_file(file)
    assert [anchor.position for anchor in anchors] == [3, 5]
    async with Storage.open(log, SystemClock()) as storage:
        assert await check_anchors(storage, anchors) == []
    # Another start continues after the last anchor in the file.
    (again,) = scheduled_anchors(log, schedule, clock=clock)
    assert again.status.last_at == anchors[-1].time


async def test_url_gets_signed_anchors_and_retries(log: Path, tmp_path: Path) -> None:
    await append(log, 3)
    key = tmp_path / "key.pem"
    public = new_key(key, "ann")
    clock = ManualClock()
    async with receiving() as receiver:
        receiver.answers = [
            b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 302 Found\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n",
            b"no HTTP\r\n\r\n",
        ]
        schedule = AnchorSchedule(every_s=HOUR, urls=(receiver.url,), key=key)
        (work,) = scheduled_anchors(log, schedule, clock=clock)
        async with work.running():
            for wait_s in (15, 30, 60):
                await until(lambda: work.task.next_try_at is not None)
                assert not work.task.up
                await clock.advance(wait_s)
            await until(lambda: work.status.last_position == 3)
            assert work.task.up
            assert work.task.restarts == 3

        (anchor,) = parse_anchors(receiver.bodies[-1], source="")
        assert public.has_signed(anchor)
        assert "POST /anchors " in receiver.heads[-1]
        assert "text/plain" in receiver.heads[-1]
        assert len(receiver.bodies) == 4


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b'{"detail": "the anchor is of this log"}', "400: the anchor is of this log"),
        (b'{"detail": 5}', "400"),
        (b"\xff", "400"),
        (b'{"detail": "%s"}' % (b"x" * publish.LONGEST_PROBLEM), "400"),
    ],
)
async def test_reason_of_another_herdbook_is_shown(
    log: Path, body: bytes, shown: str
) -> None:
    await append(log, 1)
    async with Storage.open(log, SystemClock()) as storage, receiving() as receiver:
        anchor = await make_anchor(storage, SystemClock())
        head = b"HTTP/1.1 400 Bad\r\ncontent-type: application/problem+json\r\n"
        receiver.answers = [b"%scontent-length: %d\r\n\r\n%s" % (head, len(body), body)]
        with pytest.raises(NotPublishedError) as caught:
            await post_text(receiver.url, anchor, clock=SystemClock())
    assert caught.value.state.endswith(f"the answer has status {shown}")


async def test_url_that_does_not_answer_times_out(log: Path) -> None:
    await append(log, 1)
    clock = ManualClock()
    async with receiving() as receiver:
        receiver.answers = [b""]
        schedule = AnchorSchedule(every_s=HOUR, urls=(receiver.url,))
        (work,) = scheduled_anchors(log, schedule, clock=clock)
        async with work.running():
            await until(lambda: receiver.bodies)
            await clock.advance(publish.ANSWER_WITHIN_S)
            await until(lambda: not work.task.up)
            assert "no answer within 15 s" in work.task.failure


async def test_failing_destination_delays_no_other(log: Path, tmp_path: Path) -> None:
    await append(log, 2)
    file = tmp_path / "anchors.txt"
    clock = ManualClock()
    schedule = AnchorSchedule(
        every_s=HOUR, files=(file,), urls=("http://127.0.0.1:9/", "http://127.0.0.1:9")
    )
    to_file, first, second = scheduled_anchors(log, schedule, clock=clock)

    async with running(to_file, first, second):
        await until(lambda: to_file.status.last_position == 2)
        await until(lambda: not first.task.up and not second.task.up)

    assert first.task.name == "anchors_to_url_1"
    assert second.task.name == "anchors_to_url_2"
    assert to_file.task.up


async def test_errors_never_show_secrets_of_a_url(log: Path) -> None:
    await append(log, 1)
    url = "http://ann:secret@127.0.0.1:9/path?key=secret"
    async with Storage.open(log, SystemClock()) as storage:
        anchor = await make_anchor(storage, SystemClock())

    with pytest.raises(NotPublishedError) as raised:
        await post_text(url, anchor, clock=SystemClock())

    assert "127.0.0.1:9/path" in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "url", ["", "ftp://a/b", "http://", "http://a:b/", "anchors.txt"]
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(CallerError, match="is not a URL"):
        check_url(url)


def test_invalid_schedules_are_refused(tmp_path: Path) -> None:
    odd = tmp_path / "odd.txt"
    odd.write_text("no anchor")
    for schedule in (
        AnchorSchedule(every_s=1, files=(tmp_path / "a",)),
        AnchorSchedule(every_s=HOUR),
        AnchorSchedule(every_s=HOUR, files=(tmp_path / "none" / "a",)),
        AnchorSchedule(every_s=HOUR, files=(odd,)),
        AnchorSchedule(every_s=HOUR, files=(tmp_path / "a",), key=odd),
        AnchorSchedule(every_s=HOUR, files=(tmp_path / "a",), key=tmp_path / "none"),
    ):
        with pytest.raises(CallerError):
            scheduled_anchors(Path("herd.db"), schedule, clock=ManualClock())


async def test_empty_log_is_not_anchored(log: Path, tmp_path: Path) -> None:
    file = tmp_path / "anchors.txt"
    clock = ManualClock()
    schedule = AnchorSchedule(every_s=HOUR, files=(file,))
    (work,) = scheduled_anchors(log, schedule, clock=clock)

    async with work.running():
        await until(lambda: work.status.last_position == 0)

    assert not file.exists()
