"""Anchors and proofs of real logs."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase, digits

import msgspec
import pytest

from herdbook.core import CallerError, ManualClock, Storage, SystemClock
from herdbook.core.proof import merkle_tree
from herdbook.core.proof.anchor import Anchor, parse_anchors
from herdbook.core.proof.keys import PublicKey, new_key, parse_public_key, sign
from herdbook.core.proof.merkle_tree import EventTree
from herdbook.core.proof.proof import (
    check_anchors,
    is_extended,
    is_included,
    make_anchor,
    prove,
    prove_consistency,
)
from herdbook.events import rfc9162
from herdbook.events.errors import CorruptLogError
from herdbook.events.facts import ModelDiscovered
from herdbook.events.recorded import (
    GENESIS,
    Cause,
    NewEvent,
    StoredEvent,
    canonical_bytes,
    chained_hash,
)
from herdbook.events.snapshots import StoredView

FACT = ModelDiscovered(digest="a" * 64, size_bytes=1, remote_host=None)
CLOCK = SystemClock()
DIGITS = f"{ascii_uppercase}{ascii_lowercase}{digits}+/"
"""The digits of base64."""


async def append(storage: Storage, start: int, count: int) -> None:
    for number in range(start, start + count):
        new = NewEvent(
            fact=FACT,
            occurred_at=datetime.now(UTC),
            actor="test",
            cause=Cause.COMMAND,
        )
        await storage.store.append(f"model/local/m{number}:latest", [new], 0)


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(merkle_tree, "BLOCK", 4)
    return tmp_path / "herd.db"


def rewrite(log: Path, position: int) -> None:
    """Change an event, and compute the chain again, as its owner could."""
    with closing(sqlite3.connect(log, isolation_level=None)) as db:
        for (trigger,) in db.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        ).fetchall():
            db.execute(f"DROP TRIGGER {trigger}")
        names = [field.name for field in msgspec.structs.fields(StoredEvent)]
        previous = GENESIS
        for row in db.execute(
            f"SELECT {', '.join(names)} FROM events ORDER BY position"
        ).fetchall():
            event = StoredEvent(*row)
            if event.position == position:
                event = msgspec.structs.replace(event, actor="somebody:else")
            previous = chained_hash(previous, canonical_bytes(event))
            db.execute(
                "UPDATE events SET actor = ?, hash = ? WHERE position = ?",
                (event.actor, previous, event.position),
            )
        db.execute("UPDATE head SET hash = ?", (previous,))


@pytest.mark.parametrize("events", [1, 3, 4, 5, 8, 11, 16, 21])
async def test_every_event_can_be_proved(log: Path, events: int) -> None:
    async with Storage.open(log, CLOCK) as storage:
        await append(storage, 0, events)
        anchor = await make_anchor(storage, CLOCK)
        for position in range(1, events + 1):
            proof = await prove(storage, position, anchor)

            assert is_included(proof, anchor)
            assert not is_included(
                msgspec.structs.replace(
                    proof, canonical=proof.canonical.replace("test", "tesu")
                ),
                anchor,
            )


async def test_anchor_has_the_root_over_the_hashes_of_the_events(log: Path) -> None:
    async with Storage.open(log, CLOCK) as storage:
        await append(storage, 0, 13)
        hashes = [event.hash async for event in storage.store.read_all()]
        for _ in ("computed", "with stored blocks"):
            anchor = await make_anchor(storage, CLOCK)

            leaves = [rfc9162.leaf_hash(bytes.fromhex(each)) for each in hashes]
            assert anchor.root == rfc9162.root_of(leaves)
            assert (anchor.position, anchor.hash) == (13, hashes[-1])
            assert anchor.origin.startswith("herdbook/")


async def test_later_anchors_extend_earlier_ones(log: Path) -> None:
    anchors: list[Anchor] = []
    async with Storage.open(log, CLOCK) as storage:
        for number in range(9):
            await append(storage, number * 2, 2)
            anchors.append(await make_anchor(storage, CLOCK))
        for first in anchors:
            for second in anchors[anchors.index(first) :]:
                proof = await prove_consistency(storage, first, second)
                assert is_extended(proof, first, second)
        with pytest.raises(CallerError, match="earlier anchor first"):
            await prove_consistency(storage, anchors[1], anchors[0])


async def test_rewritten_log_does_not_match_its_anchors(log: Path) -> None:
    async with Storage.open(log, CLOCK) as storage:
        await append(storage, 0, 6)
        early = await make_anchor(storage, CLOCK)
        await append(storage, 6, 6)
        late = await make_anchor(storage, CLOCK)
        assert await check_anchors(storage, [early, late]) == []
    rewrite(log, 8)

    async with Storage.open(log, CLOCK) as storage:
        findings = await check_anchors(storage, [early, late])

        assert [finding.position for finding in findings] == [12]
        assert "was changed" in findings[0].message
        assert await check_anchors(storage, [early]) == []
        with pytest.raises(CorruptLogError, match="does not match"):
            await prove_consistency(storage, early, late)


async def test_every_anchor_of_a_log_is_checked_with_one_read(log: Path) -> None:
    async with Storage.open(log, CLOCK) as storage:
        anchors = []
        for start in range(20):
            await append(storage, start, 1)
            anchors.append(await make_anchor(storage, CLOCK))
    rewrite(log, 8)

    async with Storage.open(log, CLOCK) as storage:
        findings = await check_anchors(storage, anchors[::-1])

    assert [finding.position for finding in findings] == list(range(20, 7, -1))


async def test_damaged_hash_is_reported(log: Path) -> None:
    async with Storage.open(log, CLOCK) as storage:
        await append(storage, 0, 6)
    with closing(sqlite3.connect(log, isolation_level=None)) as db:
        db.execute("DROP TRIGGER events_are_not_changed")
        db.execute("UPDATE events SET hash = 'nonsense' WHERE position = 2")

    async with Storage.open(log, CLOCK) as storage:
        with pytest.raises(CorruptLogError, match="event #2 has a damaged"):
            await make_anchor(storage, CLOCK)


async def _cache(storage: Storage) -> StoredView:
    view = await storage.snapshots.load_view("merkle_tree")
    assert view is not None
    return view


async def test_shorter_and_other_logs_do_not_match(log: Path, tmp_path: Path) -> None:
    async with Storage.open(log, CLOCK) as storage:
        await append(storage, 0, 5)
        anchor = await make_anchor(storage, CLOCK)
    async with Storage.open(tmp_path / "other.db", CLOCK) as other:
        await append(other, 0, 4)
        [shorter] = await check_anchors(other, [anchor])
        await append(other, 4, 4)
        [different] = await check_anchors(other, [anchor])
        with pytest.raises(CallerError, match="another log"):
            await prove(other, 1, anchor)
        early = msgspec.structs.replace(await make_anchor(other, CLOCK), position=1)
        with pytest.raises(CallerError, match="another log"):
            await prove_consistency(other, anchor, early)

    assert "after the end" in shorter.message
    assert "another log" in different.message


async def test_stored_blocks_of_another_log_are_not_used(log: Path) -> None:
    async with Storage.open(log, CLOCK) as storage:
        await append(storage, 0, 9)
        root = (await make_anchor(storage, CLOCK)).root
        cache = await _cache(storage)
        await storage.snapshots.save_view(
            msgspec.structs.replace(cache, hash="0" * 64, data=bytes(len(cache.data)))
        )

        assert (await make_anchor(storage, CLOCK)).root == root


async def test_empty_log_has_nothing_to_anchor(log: Path) -> None:
    async with Storage.open(log, CLOCK) as storage:
        with pytest.raises(CallerError, match="no events yet"):
            await make_anchor(storage, CLOCK)
        tree_of_none = await EventTree.read(storage, 0)
        assert await tree_of_none.root() == rfc9162.EMPTY_ROOT
        with pytest.raises(CallerError, match="does not exist"):
            await EventTree.read(storage, 1)


@pytest.fixture
def anchor() -> Anchor:
    return Anchor(
        origin="herdbook/01890000-0000-7000-8000-000000000001",
        position=3,
        root=bytes(range(32)),
        hash="ab" * 32,
        time=ManualClock().now().replace(microsecond=0),
    )


def test_anchor_is_read_as_it_was_written(anchor: Anchor, tmp_path: Path) -> None:
    public = new_key(tmp_path / "key.pem", "alice")
    signed = sign(anchor, tmp_path / "key.pem")

    read = parse_anchors(f"{anchor.text()}\n{signed.text()}", source="anchors")

    assert read == [anchor, signed]
    assert parse_public_key((tmp_path / "key.pem.pub").read_text()) == public
    assert (tmp_path / "key.pem").stat().st_mode & 0o777 == 0o600


def test_signature_is_of_one_key_and_one_text(anchor: Anchor, tmp_path: Path) -> None:
    public = new_key(tmp_path / "a.pem", "alice")
    other = new_key(tmp_path / "b.pem", "alice")
    signed = sign(anchor, tmp_path / "a.pem")

    assert public.has_signed(signed)
    assert not public.has_signed(anchor)
    assert not other.has_signed(signed)
    assert not PublicKey("bob", public.raw).has_signed(signed)
    assert not public.has_signed(msgspec.structs.replace(signed, position=4))


async def test_anchor_must_be_signed_by_a_given_key(log: Path, tmp_path: Path) -> None:
    public = new_key(tmp_path / "a.pem", "alice")
    async with Storage.open(log, CLOCK) as storage:
        await append(storage, 0, 2)
        made = await make_anchor(storage, CLOCK)
        signed = sign(made, tmp_path / "a.pem")

        assert await check_anchors(storage, [signed], [public]) == []
        [finding] = await check_anchors(storage, [made], [public])

    assert "not signed" in finding.message


async def test_proof_or_anchor_with_an_altered_digit_is_refused(
    log: Path, tmp_path: Path
) -> None:
    new_key(tmp_path / "a.pem", "alice")
    async with Storage.open(log, CLOCK) as storage:
        await append(storage, 0, 3)
        anchor = sign(await make_anchor(storage, CLOCK), tmp_path / "a.pem")
        proof = await prove(storage, 2, anchor)
    text = anchor.text()
    unused_bits = [text.index("=\n"), text.rindex("=\n")]

    for at in unused_bits:
        digit = DIGITS[DIGITS.index(text[at - 1]) ^ 1]
        with pytest.raises(CallerError, match="invalid"):
            parse_anchors(text[: at - 1] + digit + text[at:], source="anchors")
    for path in (
        [each.upper() for each in proof.path],
        [f" {each}" for each in proof.path],
        [each[1:] for each in proof.path],
    ):
        altered = msgspec.structs.replace(proof, path=tuple(path))
        assert not is_included(altered, anchor)


@pytest.mark.parametrize(
    "text",
    ["nonsense", "herdbook/x\n0\n", "herdbook/x\n1\nAAAA\nchain 0\ntime now\n"],
)
def test_invalid_anchor_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(CallerError, match="line 1"):
        parse_anchors(text, source="file")


@pytest.mark.parametrize("text", ["", "alice+00000000+AAAA", "alice", "a+b+c"])
def test_invalid_public_key_is_refused(text: str) -> None:
    with pytest.raises(CallerError, match="not a public key"):
        parse_public_key(text)


def test_key_never_replaces_a_file(tmp_path: Path) -> None:
    new_key(tmp_path / "key.pem", "alice")

    with pytest.raises(CallerError, match="cannot be created"):
        new_key(tmp_path / "key.pem", "alice")
    with pytest.raises(CallerError, match="not a valid name"):
        new_key(tmp_path / "other.pem", "al ice")


def test_invalid_key_is_refused(anchor: Anchor, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("nothing")
    (tmp_path / "key.pem.pub").write_text("nothing")

    with pytest.raises(CallerError, match="not a private key"):
        sign(anchor, tmp_path / "key.pem")
