"""Anchors of another log: recorded once, and sent by the service of the other log."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cli_runner import SandboxThread
from support.log_lines import append
from support.service_program import RunningService, run_in_thread, run_service
from support.waiting import wait_until

from herdbook.cli import run
from herdbook.core import Storage, SystemClock
from herdbook.core.proof.anchor import Anchor
from herdbook.core.proof.proof import make_anchor
from herdbook.service.auth.tokens import Role, Token, sha256_of


async def anchor_of(log: Path) -> Anchor:
    async with Storage.open(log, SystemClock()) as storage:
        return await make_anchor(storage, SystemClock())


async def test_anchor_is_recorded_once(
    herdbook: RunningService, tmp_path: Path
) -> None:
    other = tmp_path / "other.db"
    await append(other, 5)
    anchor = await anchor_of(other)

    answers = [
        herdbook.http.post("/v1/anchors", json={"anchor": anchor.text()})
        for _ in range(2)
    ]

    assert [answer.status_code for answer in answers] == [201, 201]
    first, again = (answer.json() for answer in answers)
    assert first == again
    assert first["origin"] == anchor.origin
    assert first["anchored_position"] == 5
    event = herdbook.get(f"/v1/events/{first['position']}")
    assert event["type"] == "AnchorReceived"
    assert event["data"]["text"] == anchor.text()
    assert event["stream"] == "node/local"
    found = herdbook.get("/v1/events", params={"type": "AnchorReceived"})["events"]
    assert len(found) == 1
    # The service keeps working on the same stream.
    herdbook.operate("refresh")
    assert herdbook.get("/readyz")["status"] == "ok"


async def test_other_texts_are_refused(
    herdbook: RunningService, tmp_path: Path
) -> None:
    other = tmp_path / "other.db"
    await append(other, 2)
    text = (await anchor_of(other)).text()
    own = (await anchor_of(herdbook.log)).text()
    head = herdbook.get("/v1/log/head")

    for bad, status in (
        ("", 400),
        ("no anchor", 400),
        (text + text, 400),
        (text.replace("\n2\n", "\n99999999999999999\n"), 400),
        ("x" * 9000, 400),
        (own, 400),
    ):
        answer = herdbook.http.post("/v1/anchors", json={"anchor": bad})
        assert (answer.status_code, bad[:20]) == (status, bad[:20]), answer.text

    assert herdbook.get("/v1/log/head") == head


def test_service_sends_its_anchors_to_another_herdbook(
    tmp_path: Path,
    ollama: SandboxThread,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    secret = "a-secret-of-some-length-0123456789"
    tokens = (Token(name="alice", role=Role.OPERATE, sha256=sha256_of(secret)),)
    log = tmp_path / "herd.db"
    with run_in_thread(tmp_path / "keeper.db", ollama.address, tokens=tokens) as keeper:
        environment = {"HERDBOOK_ANCHOR_TOKEN": secret}
        options = ["--anchor-every", "1h", "--anchor-to", keeper.address]
        with run_service(
            log, ollama.address, *options, environment=environment
        ) as service:
            wait_until(lambda: service.get("/readyz")["upkeep"][0]["last_position"], 30)

    capsys.readouterr()
    assert run(["anchor", "--received", "--db", str(tmp_path / "keeper.db")]) == 0
    anchors = tmp_path / "anchors.txt"
    anchors.write_text(capsys.readouterr().out)
    assert run(["verify", "--db", str(log), "--anchors", str(anchors)]) == 0
    capsys.readouterr()
    assert run(["anchor", "--received", "--db", str(log)]) == 0
    assert capsys.readouterr().out == ""
