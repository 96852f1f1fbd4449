from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from support.cli_runner import Herdbook, SandboxThread
from support.odd_log import write_invalid_utf8


@pytest.fixture
def altered(herdbook: Herdbook, server: SandboxThread, log: Path) -> Herdbook:
    """Return the command on a log in which somebody changed an event."""
    herdbook("use", "llama3.2:3b", "--for", "honest work")
    with closing(sqlite3.connect(log)) as connection, connection:
        triggers = connection.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'trigger'"
        ).fetchall()
        for (name,) in triggers:
            connection.execute(f'DROP TRIGGER "{name}"')
        connection.execute(
            "UPDATE events SET data = replace(data, 'honest', 'idle')"
            " WHERE type = 'ModelUsed'"
        )
    return herdbook


def test_verify_reports_no_findings(herdbook: Herdbook, server: SandboxThread) -> None:
    herdbook("ls")

    answer = herdbook("verify")

    assert answer.code == 0
    assert answer.out.startswith("11 events, chain intact from #1 to #11, head ")
    assert "…, 0 findings, " in answer.out


def test_verify_shows_each_finding_and_its_position(altered: Herdbook) -> None:
    answer = altered("verify")

    assert answer.code == 1
    assert "   hash" in answer.out
    assert "was changed, or does not follow" in answer.out
    assert "damaged" in answer.out.splitlines()[-1]


def test_verify_in_json_has_head_and_findings(altered: Herdbook) -> None:
    answer = altered("verify", "--json")

    assert answer.code == 1
    figures = {"events", "position", "hash", "seconds", "anchors", "signatures_checked"}
    assert {*answer.json} == {*figures, "findings", "omitted", "missing"}
    assert "hash" in {found["kind"] for found in answer.json["findings"]}


def test_verify_checks_a_log_with_illegal_events(
    herdbook: Herdbook, server: SandboxThread, log: Path
) -> None:
    herdbook("ls")
    with closing(sqlite3.connect(log)) as connection, connection:
        for (name,) in connection.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'trigger'"
        ).fetchall():
            connection.execute(f'DROP TRIGGER "{name}"')
        connection.execute("UPDATE events SET type = 'Gone' WHERE position = 2")

    assert herdbook("ls").code == 1
    assert "Run: herdbook verify" in herdbook("ls").err or "known" in herdbook("ls").err
    assert herdbook("verify").code == 1


def test_verify_names_each_damaged_event(
    herdbook: Herdbook, server: SandboxThread, log: Path, tmp_path: Path
) -> None:
    herdbook("ls")
    anchors = tmp_path / "anchors"
    herdbook("anchor", "--append", str(anchors))
    write_invalid_utf8(log, "events", "actor", "position IN (1, 5, 6)")

    answer = herdbook("verify", "--anchors", str(anchors))

    assert (answer.code, answer.err) == (1, "")
    for position in (1, 5, 6):
        assert f"event #{position} has a damaged column" in answer.out
    assert "the anchor of" in answer.out
    assert "cannot be checked" in answer.out
    assert ", 4 findings, " in answer.out
    assert ", 3 findings, " in herdbook("verify").out


def test_verify_reports_a_damaged_page_of_any_table(
    herdbook: Herdbook, server: SandboxThread, log: Path
) -> None:
    herdbook("ls")
    sound = log.read_bytes()
    with closing(sqlite3.connect(log)) as connection:
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        query = "SELECT name, rootpage FROM sqlite_schema WHERE rootpage > 1"
        pages = connection.execute(query).fetchall()

    for name, page in pages:
        begin = (page - 1) * size
        log.write_bytes(sound[:begin] + b"\xff" * size + sound[begin + size :])
        answer = herdbook("verify")
        assert (answer.code, answer.err) == (1, ""), name
        assert ", damaged, " in answer.out, name


def test_verify_of_an_empty_log_has_nothing_to_check(
    herdbook: Herdbook, no_server: None
) -> None:
    herdbook("ls")

    assert herdbook("verify").out == "no events yet\n"


def test_verify_creates_no_log(herdbook: Herdbook, log: Path) -> None:
    answer = herdbook("verify")

    assert answer.code == 3
    assert answer.err == (
        f"herdbook: {log} does not exist. Choose a log with --db LOG   (exit 3)\n"
    )
    assert not log.exists()


def test_verify_names_a_write_ahead_log_without_its_log(
    herdbook: Herdbook, log: Path
) -> None:
    wal = log.with_name(f"{log.name}-wal")
    wal.write_bytes(b"x" * 5000)
    result = herdbook("verify")
    assert result.code == 1
    assert "is missing, but its write-ahead log" in result.err
    assert wal.exists()
    assert not log.exists()


def test_verify_shows_a_lost_end_until_it_is_accepted(
    herdbook: Herdbook, server: SandboxThread, log: Path
) -> None:
    herdbook("refresh")
    kept = log.with_name(f"{log.name}-head")
    kept.write_text(f"99:{'a' * 64}\n")
    result = herdbook("verify")
    assert result.code == 1
    assert "had reached #99" in result.out
    assert kept.read_text().startswith("99:")
    assert herdbook("verify", "--accept").code == 0
    assert herdbook("verify").code == 0
    assert not kept.read_text().startswith("99:")


def test_verify_compares_the_log_with_an_anchor(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    herdbook("ls")
    head = herdbook("verify", "--json").json
    herdbook("use", "llama3.2:3b")

    anchor = f"#{head['position']}:{head['hash']}"
    assert herdbook("verify", "--anchor", anchor).code == 0


def test_verify_finds_a_log_that_lacks_its_anchor(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    herdbook("ls")

    rewritten = herdbook("verify", "--anchor", f"3:{'a' * 64}")
    cut = herdbook("verify", "--anchor", f"999:{'a' * 64}")

    assert (rewritten.code, cut.code) == (1, 1)
    assert "does not match the hash of the anchor" in rewritten.out
    assert "is missing, but has an anchor" in cut.out


def test_verify_refuses_an_invalid_anchor(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    for text in ("12", f"{'9' * 5000}:{'a' * 64}"):
        answer = herdbook("verify", "--anchor", text)

        assert answer.code == 2
        assert "is not a valid anchor" in answer.err
