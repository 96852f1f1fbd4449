"""The envelope, and the hash that anyone can compute."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from uuid import UUID

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from herdbook.events.recorded import (
    GENESIS,
    StoredEvent,
    canonical_bytes,
    chained_hash,
    new_id,
    time_text,
)

EVENT = StoredEvent(
    position=1,
    stream="model/local/llama3.1:latest",
    version=1,
    event_id="01890000-0000-7000-8000-000000000001",
    type="ModelUsed",
    schema=1,
    data='{"purpose":"ü \\"x\\""}',
    occurred_at="2026-01-02T03:04:05.000000Z",
    recorded_at="2026-01-02T03:04:05.000001Z",
    actor="cli:ann",
    cause="command",
    correlation_id=None,
    causation_id=None,
    hash="",
)
texts = st.text(st.characters(exclude_categories=["Cs"]))


def plain_canonical(event: StoredEvent) -> bytes:
    """Return the canonical bytes as anybody would make them, by the docs."""
    envelope = msgspec.structs.asdict(event)
    del envelope["hash"]
    envelope["data"] = json.loads(event.data)
    return json.dumps(
        envelope, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    ).encode()


def test_canonical_bytes_are_these() -> None:
    assert canonical_bytes(EVENT).decode() == (
        '{"actor":"cli:ann","causation_id":null,"cause":"command",'
        '"correlation_id":null,"data":{"purpose":"ü \\"x\\""},'
        '"event_id":"01890000-0000-7000-8000-000000000001",'
        '"occurred_at":"2026-01-02T03:04:05.000000Z","position":1,'
        '"recorded_at":"2026-01-02T03:04:05.000001Z","schema":1,'
        '"stream":"model/local/llama3.1:latest","type":"ModelUsed","version":1}'
    )


def test_hash_is_of_the_previous_one_and_the_bytes() -> None:
    expected = hashlib.sha256(b"0" * 64 + canonical_bytes(EVENT)).hexdigest()
    assert chained_hash(GENESIS, canonical_bytes(EVENT)) == expected


@given(texts, texts, texts)
def test_canonical_bytes_need_no_herdbook(stream: str, actor: str, note: str) -> None:
    data = msgspec.json.encode({"note": note}).decode()
    event = msgspec.structs.replace(EVENT, stream=stream, actor=actor, data=data)
    assert json.loads(canonical_bytes(event)) == json.loads(plain_canonical(event))
    if note.isprintable() and stream.isprintable() and actor.isprintable():
        assert canonical_bytes(event) == plain_canonical(event)


def test_times_have_microseconds_and_z() -> None:
    assert time_text(datetime(2026, 1, 2, tzinfo=UTC)) == "2026-01-02T00:00:00.000000Z"


def test_ids_are_uuids_that_grow_with_time() -> None:
    before = datetime.now(UTC)
    ids = [new_id() for _ in range(100)]
    assert len(set(ids)) == 100
    uuid = UUID(ids[0])
    assert (str(uuid), uuid.version, uuid.variant) == (
        ids[0],
        7,
        "specified in RFC 4122",
    )
    assert 0 <= (uuid.int >> 80) - int(before.timestamp() * 1000) < 60_000
